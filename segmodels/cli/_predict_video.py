"""`segmodels predict` on videos."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from segmodels.data.video_io import SUFFIXES, open_video
from segmodels.inference.batch import reason_of
from segmodels.inference.result_files import Job, Origin, plan_jobs
from segmodels.inference.segmenter import Segmenter
from segmodels.inference.video import VIDEO_RESULTS, predict_video
from segmodels.utils.distributed import gathered, is_main_process, shared

SILENT = "the results have no sound"


def is_video(path: Path) -> bool:
    """Whether this is the name of a video, not of a folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def predict_videos(
    videos: Sequence[Path], segmenter: Segmenter, origin: Origin, options: argparse.Namespace
) -> list[str]:
    """Segment the videos into --out, and report it; a line for each that failed."""
    jobs = gathered([plan_jobs(videos, options.out, origin, VIDEO_RESULTS)])[0]
    todo = [job for job in jobs if not (options.resume and job.is_done)]
    batch_size = options.batch_size or (1 if segmenter.device.type == "cpu" else 8)
    failures = []
    for job in shared(todo):
        try:
            _predict(job, segmenter, origin, batch_size)
        except Exception as error:
            failures.append(f"{job.image}: {reason_of(error)}")
    failures = gathered(failures)
    if is_main_process():
        _report(jobs, todo, failures, options.out)
    return failures


def _predict(job: Job, segmenter: Segmenter, origin: Origin, batch_size: int) -> None:
    with open_video(job.image) as video:
        has_sound = video.has_sound
    with tqdm(unit="frame", desc=job.image.name, disable=not is_main_process()) as bar:
        for done, count in predict_video(job, segmenter, origin, batch_size=batch_size):
            bar.total = count
            bar.update(done - bar.n)
    if has_sound:
        print(f"{job.image}: {SILENT}", file=sys.stderr)


def _report(jobs: Sequence[Job], todo: Sequence[Job], failures: Sequence[str], out: Path) -> None:
    print(f"{len(jobs) - len(failures)} of {len(jobs)} videos segmented into {out}")
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of them had their results already")
    for job in jobs:
        if job.class_ids.stem != job.image.stem:
            print(f"{job.image} -> {job.class_ids.name}: the name was taken or too long")
    for failure in failures:
        print(f"segmodels: {failure}", file=sys.stderr)
