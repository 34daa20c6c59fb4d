"""`segmodels predict`: pictures to class-id PNGs and overlays."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.image_io import FORMATS
from segmodels.inference.batch import Failure, Job, Predictor
from segmodels.utils.distributed import gathered, is_main_process, join_processes, shared


def add(commands: Commands) -> None:
    command = commands.add_parser("predict", help="pictures to class-id PNGs and overlays")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--out", type=Path, default=Path("segmented"), help="default: segmented/")
    command.add_argument("--opacity", type=float, default=0.5, help="of the overlays, 0 to 1")
    command.add_argument("--working-size", type=int, help="longer side seen by the network, pixels")
    command.add_argument("--batch-size", type=int, help="default: 1 on a CPU, 8 on a GPU")
    command.add_argument(
        "--resume", action="store_true", help="leave out pictures whose results are in --out"
    )
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not 0 <= options.opacity <= 1:
        raise CommandError(f"--opacity must be from 0 to 1, got {options.opacity}")
    for name in ("working_size", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    jobs = _jobs(options.pictures, options.out)
    options.device = join_processes(options.device)
    segmenter = open_segmenter(options)
    on_gpu = segmenter.device.type != "cpu"
    predictor = Predictor(
        segmenter, options.opacity, options.working_size, options.batch_size or (8 if on_gpu else 1)
    )
    options.out.mkdir(parents=True, exist_ok=True)
    mine = [job for job in shared(jobs) if not (options.resume and job.is_done)]
    bar = tqdm(total=len(mine), unit="picture", disable=len(jobs) == 1 or not is_main_process())
    failures = []
    with bar:
        for outcome in predictor.run(mine):
            bar.update()
            if isinstance(outcome, Failure):
                failures.append(f"{outcome.job.picture}: {outcome.error}")
            elif outcome.note:
                tqdm.write(f"{outcome.job.picture}: {outcome.note}", file=sys.stderr)
    failures = gathered(failures)
    if is_main_process():
        busy = f" (network busy {100 * predictor.busy:.0f} % of the time)" if len(mine) > 1 else ""
        done = len(jobs) - len(failures)
        print(f"{done} of {len(jobs)} pictures segmented into {options.out}{busy}")
        for failure in failures:
            print(f"segmodels: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _jobs(paths: Sequence[Path], out: Path) -> list[Job]:
    return [
        Job(picture, out / f"{name}.png", out / f"{name}_overlay.png")
        for picture, name in _named_pictures(paths)
    ]


def _named_pictures(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Every picture, folders opened, with a name for its results that no other has: its stem, or
    else its file name, or a number behind it."""
    jobs: dict[str, Path] = {}
    for number, path in enumerate(_files(paths)):
        names = (path.stem, path.name.replace(".", "_"), f"{path.stem}_{number}")
        jobs[next(name for name in names if name not in jobs)] = path
    return [(path, name) for name, path in jobs.items()]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    suffixes = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
        if not inside:
            raise CommandError(f"{path} holds no picture files")
        yield from inside
