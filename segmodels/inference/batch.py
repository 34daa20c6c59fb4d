"""Many pictures: decoded, computed and written at the same time."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from segmodels.data.image_io import PictureError, read_image
from segmodels.inference.results import Segmentation, save_png
from segmodels.inference.segmenter import Segmenter


@dataclass(frozen=True)
class Job:
    """A picture, and where its class ids and its overlay go, both PNG."""

    picture: Path
    class_ids: Path
    overlay: Path

    @property
    def is_done(self) -> bool:
        """Both are there, and each is written whole or not at all."""
        return self.class_ids.exists() and self.overlay.exists()


@dataclass
class Predictor:
    """Segments pictures, busy with the network while others are decoded and written.

    opacity: of the overlays, 0 to 1. working_size: see `Segmenter`.
    batch_size: pictures of one working size that go through the network in one pass.
    threads: that decode, and as many that write.
    busy_seconds, seconds: how long the network ran, and everything took, in the last `run`.
    """

    segmenter: Segmenter
    opacity: float = 0.5
    working_size: int | None = None
    batch_size: int = 1
    threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    busy_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the time of the last `run` in which the network ran."""
        return self.busy_seconds / self.seconds if self.seconds else 0.0

    def run(self, jobs: Sequence[Job]) -> Iterator["Done | Failure"]:
        """Each job when its results are written, or when it has failed, in any order."""
        start = time.perf_counter()
        self.busy_seconds = 0.0
        written: list[Future[Done]] = []
        with ThreadPoolExecutor(self.threads) as readers, ThreadPoolExecutor(self.threads) as pens:
            for batch in self._batches(self._prepared(jobs, readers)):
                if isinstance(batch, Failure):
                    yield batch
                    continue
                for prepared, result in zip(batch, self._segmented(batch), strict=True):
                    written.append(pens.submit(self._write, prepared.job, result))
                # No more waits to be written than is computed meanwhile.
                while len(written) > 2 * self.threads or (written and written[0].done()):
                    yield written.pop(0).result()
            for future in written:
                yield future.result()
        self.seconds = time.perf_counter() - start

    def _prepared(
        self, jobs: Sequence[Job], readers: ThreadPoolExecutor
    ) -> Iterator["Prepared | Failure"]:
        """In the jobs' order, a few of them decoded ahead."""
        ahead: list[Future[Prepared | Failure]] = []
        for job in jobs:
            ahead.append(readers.submit(self._prepare, job))
            if len(ahead) > self.threads + self.batch_size:
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()

    def _prepare(self, job: Job) -> "Prepared | Failure":
        try:
            image = read_image(job.picture)
        except PictureError as error:
            return Failure(job, error)
        return Prepared(job, image, self.segmenter.pixels(image, self.working_size))

    def _batches(
        self, prepared: Iterator["Prepared | Failure"]
    ) -> Iterator["list[Prepared] | Failure"]:
        """Up to `batch_size` pictures of one working size at a time; no more than so many of all
        sizes wait for others of theirs."""
        waiting: dict[torch.Size, list[Prepared]] = {}
        for one in prepared:
            if isinstance(one, Failure):
                yield one
                continue
            group = waiting.setdefault(one.pixels.shape, [])
            group.append(one)
            if len(group) == self.batch_size or sum(map(len, waiting.values())) > self.batch_size:
                largest = max(waiting, key=lambda size: len(waiting[size]))
                yield waiting.pop(largest)
        yield from waiting.values()

    def _segmented(self, batch: list["Prepared"]) -> list[Segmentation]:
        start = time.perf_counter()
        results = self.segmenter.segment_batch(
            [one.image for one in batch], torch.cat([one.pixels for one in batch])
        )
        self.busy_seconds += time.perf_counter() - start
        return results

    def _write(self, job: Job, result: Segmentation) -> "Done":
        result.save(job.class_ids)
        save_png(result.overlay(self.opacity), job.overlay)
        return Done(job, result.note)


@dataclass(frozen=True)
class Prepared:
    """A decoded picture and its pixels, see `Segmenter.pixels`."""

    job: Job
    image: Image.Image
    pixels: Tensor


@dataclass(frozen=True)
class Done:
    """A picture whose results are written, and the note of its `Segmentation`."""

    job: Job
    note: str | None


@dataclass(frozen=True)
class Failure:
    """A picture that cannot be used."""

    job: Job
    error: PictureError
