"""Many images: decoded, segmented and written at the same time."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segmodels.data.image_io import PictureError
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.result_files import CLASS_IDS_KIND, OVERLAY_KIND, Job, Origin
from segmodels.inference.results import Segmentation, save_png
from segmodels.inference.segmenter import Segmenter


@dataclass(frozen=True)
class Done:
    """An image whose results are written, and the note of its `Segmentation`."""

    job: Job
    note: str | None


@dataclass(frozen=True)
class Failure:
    """An image without results, and why."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Prepared:
    """A decoded image and its pixels, see `Segmenter.pixels`."""

    job: Job
    image: DecodedImage
    pixels: Tensor


@dataclass
class Predictor:
    """Segments images while others are decoded and written.

    Attributes:
        segmenter: What segments.
        origin: What the results' files record beside the image; also the working size, and the
            opacity of the overlays.
        batch_size: Images of one working size that go through the network in one pass.
        threads: Threads that decode, and as many that write.
        busy_seconds: How long the network ran in the last `run`.
        seconds: How long that took.
    """

    segmenter: Segmenter
    origin: Origin
    batch_size: int = 1
    threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    busy_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the time of the last `run` in which the network ran."""
        return self.busy_seconds / self.seconds if self.seconds else 0.0

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failure]:
        """Segment the images.

        Yields:
            Each job when its results are written, or when it has failed, in any order. What goes
            wrong with one image, whatever it is, leaves the others their results.
        """
        start = time.perf_counter()
        self.busy_seconds = 0.0
        written: list[Future[Done | Failure]] = []
        with (
            ThreadPoolExecutor(self.threads) as readers,
            ThreadPoolExecutor(self.threads) as writers,
        ):
            for batch in self._batches(self._prepared(jobs, readers)):
                answers = [batch] if isinstance(batch, Failure) else self._segmented(batch)
                for answer in answers:
                    if isinstance(answer, Failure):
                        yield answer
                    else:
                        written.append(writers.submit(self._write, *answer))
                # No more results wait to be written than are computed meanwhile.
                while len(written) > 2 * self.threads or (written and written[0].done()):
                    yield written.pop(0).result()
            for future in written:
                yield future.result()
        self.seconds = time.perf_counter() - start

    def _prepared(
        self, jobs: Sequence[Job], readers: ThreadPoolExecutor
    ) -> Iterator[Prepared | Failure]:
        """In the jobs' order, a few of them decoded ahead."""
        ahead: list[Future[Prepared | Failure]] = []
        for job in jobs:
            ahead.append(readers.submit(self._prepare, job))
            if len(ahead) > self.threads + self.batch_size:
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()

    def _prepare(self, job: Job) -> Prepared | Failure:
        try:
            segmenter = self.segmenter
            image = DecodedImage.read(
                job.image,
                max_pixels=segmenter.max_pixels,
                channels=segmenter.model.in_channels,
            )
            return Prepared(job, image, self.segmenter.pixels(image, self.origin.working_size))
        except Exception as error:
            return Failure(job, reason_of(error))

    def _batches(
        self, prepared: Iterator[Prepared | Failure]
    ) -> Iterator[list[Prepared] | Failure]:
        """Up to `batch_size` images of one working size at a time; no more than so many of all
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

    def _segmented(self, batch: list[Prepared]) -> list[tuple[Prepared, Segmentation] | Failure]:
        start = time.perf_counter()
        try:
            results = self.segmenter.segment_batch(
                [one.image for one in batch], torch.cat([one.pixels for one in batch])
            )
        except Exception as error:
            if len(batch) > 1:  # the others of the batch may be well
                return [answer for one in batch for answer in self._segmented([one])]
            return [Failure(batch[0].job, reason_of(error))]
        finally:
            self.busy_seconds += time.perf_counter() - start
        return list(zip(batch, results, strict=True))

    def _write(self, prepared: Prepared, result: Segmentation) -> Done | Failure:
        job, digest = prepared.job, prepared.image.digest
        try:
            result.save(
                job.class_ids,
                metadata=self.origin.metadata(digest, CLASS_IDS_KIND),
                replace=job.may_replace,
            )
            save_png(
                result.overlay(self.origin.opacity),
                job.overlay,
                metadata=self.origin.metadata(digest, OVERLAY_KIND),
                replace=job.may_replace,
            )
        except Exception as error:
            return Failure(job, reason_of(error))
        return Done(job, result.note)


def reason_of(error: Exception) -> str:
    """What went wrong, in a sentence."""
    if isinstance(error, PictureError):
        return str(error)
    if isinstance(error, FileExistsError):
        return f"{error.filename2 or error.filename} has appeared meanwhile and is not replaced"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
