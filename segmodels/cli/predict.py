"""`segmodels predict`: segment images, TIFF stacks and videos."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.cli._predict_sequence import STACKS, VIDEOS, is_video, predict_sequences
from segmodels.data.image_folder import list_images
from segmodels.inference.batch import Failure, Predictor
from segmodels.inference.result_files import Job, Origin, is_result, model_digest, plan_jobs
from segmodels.inference.segmenter import Segmenter
from segmodels.inference.stack import is_stack, read_stack_metadata
from segmodels.utils.distributed import gathered, is_main_process, join_processes, shared


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "predict",
        help="segment images, TIFF stacks and videos",
        description="Write two files for each image: class ids (NAME.png) and an overlay "
        "(NAME_overlay.png). Multi-page TIFFs give stacks (NAME.tif, NAME_overlay.tif), and videos "
        "that are named individually give lossless FFV1 (NAME.mkv) and H.264 (NAME_overlay.mp4), "
        "without sound. Existing files are never overwritten, except earlier results of the same "
        "image and model; if a name is taken, a different one is chosen.",
    )
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--out", type=Path, default=Path("segmented"), help="default: segmented/")
    command.add_argument(
        "--opacity", type=float, default=0.5, help="opacity of the overlays, 0 to 1; default: 0.5"
    )
    command.add_argument(
        "--working-size",
        type=int,
        help="longer side of the network's input, in pixels; default: the model's",
    )
    command.add_argument("--batch-size", type=int, help="default: 1 on a CPU, 8 on a GPU")
    command.add_argument(
        "--resume",
        action="store_true",
        help="skip images whose results by the same model, with the same options, are in --out",
    )
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not 0 <= options.opacity <= 1:
        raise CommandError(f"--opacity must be between 0 and 1, got {options.opacity}")
    for name in ("working_size", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    videos = list({path.absolute(): path for path in options.pictures if is_video(path)}.values())
    images = _images([path for path in options.pictures if not is_video(path)])
    stacks = dict.fromkeys(path for path in images if is_stack(path))
    images = [path for path in images if path not in stacks]
    options.device = join_processes(options.device)
    segmenter = open_segmenter(options)
    origin = Origin(
        Path(options.model).name if Path(options.model).is_dir() else options.model,
        model_digest(segmenter.model),
        options.working_size,
        options.opacity,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    failures = []
    for kind, paths in ((VIDEOS, videos), (STACKS, list(stacks))):
        if paths:
            failures += predict_sequences(kind, paths, segmenter, origin, options)
    if images:
        failures += _predict_images(images, segmenter, origin, options)
    return 1 if failures else 0


def _predict_images(
    images: Sequence[Path], segmenter: Segmenter, origin: Origin, options: argparse.Namespace
) -> list[str]:
    """Segment images into --out and print a summary; returns one line per failed image."""
    # Planned by the main process, before any process writes.
    jobs = gathered([plan_jobs(images, options.out, origin)])[0]
    todo = [job for job in shared(jobs) if not (options.resume and job.is_done)]
    on_gpu = segmenter.device.type != "cpu"
    predictor = Predictor(segmenter, origin, options.batch_size or (8 if on_gpu else 1))
    failures = gathered(_predict(predictor, todo, show_progress=len(jobs) > 1))
    if is_main_process():
        _report(jobs, failures, options, predictor.busy if len(todo) > 1 else None)
    return failures


def _predict(predictor: Predictor, jobs: Sequence[Job], *, show_progress: bool) -> list[str]:
    """Run the jobs; returns one line per failed image."""
    failures = []
    disable = not (show_progress and is_main_process())
    with tqdm(total=len(jobs), unit="image", disable=disable) as bar:
        for outcome in predictor.run(jobs):
            bar.update()
            if isinstance(outcome, Failure):
                failures.append(f"{outcome.job.image}: {outcome.reason}")
            elif outcome.note:
                tqdm.write(f"{outcome.job.image}: {outcome.note}", file=sys.stderr)
    return failures


def _report(
    jobs: Sequence[Job], failures: Sequence[str], options: argparse.Namespace, busy: float | None
) -> None:
    share = "" if busy is None else f" (network busy {100 * busy:.0f} % of the time)"
    print(f"{len(jobs) - len(failures)} of {len(jobs)} images segmented into {options.out}{share}")
    skipped = sum(job.is_done for job in jobs) if options.resume else 0
    if skipped:
        print(f"{skipped} of them already had results")
    renamed = [job for job in jobs if job.class_ids.stem != job.image.stem]
    for job in renamed[:5]:
        print(f"{job.image} -> {job.class_ids.name}: the name was taken or too long")
    if len(renamed) > 5:
        print(f"... and {len(renamed) - 5} more under other names")
    for failure in failures:
        print(f"segmodels: {failure}", file=sys.stderr)


def _images(paths: Sequence[Path]) -> list[Path]:
    """List the image files without duplicates, with folders replaced by the files in them."""
    found = {path.absolute(): path for path in reversed(list(_files(paths)))}
    return list(reversed(found.values()))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        listing = list_images(path)
        inside = listing.images
        results = {file for file in inside if is_result(file) or read_stack_metadata(file)}
        if results:
            print(f"{path}: {len(results)} results of an earlier run are not segmented again")
        if len(inside) == len(results):
            raise CommandError("; ".join([f"{path} contains no image files", *listing.notes(path)]))
        yield from (file for file in inside if file not in results)
