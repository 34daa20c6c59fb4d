"""`segmodels predict` for image sequences: videos and TIFF stacks."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from segmodels.data.video_io import SUFFIXES, open_video
from segmodels.inference.batch import reason_of
from segmodels.inference.result_files import Job, Origin, ResultFormat, plan_jobs
from segmodels.inference.segmenter import Segmenter
from segmodels.inference.stack import STACK_RESULTS, predict_stack
from segmodels.inference.video import VIDEO_RESULTS, predict_video
from segmodels.utils.distributed import gathered, is_main_process, shared


def is_video(path: Path) -> bool:
    """Whether the path has the suffix of a video and is not a folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _sound_note(path: Path) -> str | None:
    with open_video(path) as video:
        return "the results have no sound" if video.has_sound else None


@dataclass(frozen=True)
class SequenceKind:
    """A type of image sequence.

    Attributes:
        name: Plural name, for messages.
        unit: Name of one image of a sequence, for the progress bar.
        results: Format of the result files.
        predict: Segments a sequence. Yields the number of finished images and, if known, of all.
        note: Returns a note on the results of a file for the user, or None.
    """

    name: str
    unit: str
    results: ResultFormat
    predict: Callable[..., Iterator[tuple[int, int | None]]]
    note: Callable[[Path], str | None] = lambda path: None


VIDEOS = SequenceKind("videos", "frame", VIDEO_RESULTS, predict_video, _sound_note)
STACKS = SequenceKind("stacks", "page", STACK_RESULTS, predict_stack)


def predict_sequences(
    kind: SequenceKind,
    paths: Sequence[Path],
    segmenter: Segmenter,
    origin: Origin,
    options: argparse.Namespace,
) -> list[str]:
    """Segment sequences into --out and print a summary; returns one line per failed file."""
    jobs = gathered([plan_jobs(paths, options.out, origin, kind.results)])[0]
    todo = [job for job in jobs if not (options.resume and job.is_done)]
    batch_size = options.batch_size or (1 if segmenter.device.type == "cpu" else 8)
    failures = []
    for job in shared(todo):
        try:
            _predict(kind, job, segmenter, origin, batch_size)
        except Exception as error:
            failures.append(f"{job.image}: {reason_of(error)}")
    failures = gathered(failures)
    if is_main_process():
        _report(kind, jobs, todo, failures, options.out)
    return failures


def _predict(
    kind: SequenceKind, job: Job, segmenter: Segmenter, origin: Origin, batch_size: int
) -> None:
    note = kind.note(job.image)
    with tqdm(unit=kind.unit, desc=job.image.name, disable=not is_main_process()) as bar:
        for done, count in kind.predict(job, segmenter, origin, batch_size=batch_size):
            bar.total = count
            bar.update(done - bar.n)
    if note:
        print(f"{job.image}: {note}", file=sys.stderr)


def _report(
    kind: SequenceKind,
    jobs: Sequence[Job],
    todo: Sequence[Job],
    failures: Sequence[str],
    out: Path,
) -> None:
    print(f"{len(jobs) - len(failures)} of {len(jobs)} {kind.name} segmented into {out}")
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of them already had results")
    for job in jobs:
        if job.class_ids.stem != job.image.stem:
            print(f"{job.image} -> {job.class_ids.name}: the name was taken or too long")
    for failure in failures:
        print(f"segmodels: {failure}", file=sys.stderr)
