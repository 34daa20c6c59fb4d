"""Batch prediction: images are decoded, segmented and written concurrently."""

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
    """An image whose results have been written, and the note of its `Segmentation`."""

    job: Job
    note: str | None


@dataclass(frozen=True)
class Failure:
    """An image that could not be processed, and the reason."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Prepared:
    """A decoded image, and its pixels at the working size (see `Segmenter.pixels`)."""

    job: Job
    image: DecodedImage
    pixels: Tensor


@dataclass
class Predictor:
    """Segments images while others are decoded and written.

    Attributes:
        segmenter: The segmenter.
        origin: Model and settings, recorded in the metadata of the results; includes the working
            size and the opacity of the overlays.
        batch_size: Maximum number of images per forward pass, all of the same working size.
        threads: Number of threads that decode, and number of threads that write.
        busy_seconds: Time that the network took in the last `run`.
        seconds: Duration of the last `run`.
    """

    segmenter: Segmenter
    origin: Origin
    batch_size: int = 1
    threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    busy_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def busy(self) -> float:
        """Fraction of the last `run` during which the network was running."""
        return self.busy_seconds / self.seconds if self.seconds else 0.0

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failure]:
        """Segment the images.

        Yields:
            Each job when its results have been written or it has failed, in any order. An error in
            one image does not affect the others.
        """
        start = time.perf_counter()
        self.busy_seconds = 0.0
        written: list[Future[Done | Failure]] = []
        with (
            ThreadPoolExecutor(self.threads) as readers,
            ThreadPoolExecutor(self.threads) as writers,
        ):
            for batch in self._batches(self._prepared(jobs, readers)):
                results = [batch] if isinstance(batch, Failure) else self._segmented(batch)
                for result in results:
                    if isinstance(result, Failure):
                        yield result
                    else:
                        written.append(writers.submit(self._write, *result))
                # Limit the number of results that wait in memory to be written.
                while len(written) > 2 * self.threads or (written and written[0].done()):
                    yield written.pop(0).result()
            for future in written:
                yield future.result()
        self.seconds = time.perf_counter() - start

    def _prepared(
        self, jobs: Sequence[Job], readers: ThreadPoolExecutor
    ) -> Iterator[Prepared | Failure]:
        """Decode the images in the order of the jobs, a few of them ahead of time."""
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
        """Batches of up to `batch_size` images of the same working size. At most `batch_size`
        images of all sizes are held back to complete a batch."""
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
            if len(batch) > 1:  # the error may concern one image only: retry them one by one
                return [result for one in batch for result in self._segmented([one])]
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
    """Describe an error in one sentence, for the user."""
    if isinstance(error, PictureError):
        return str(error)
    if isinstance(error, FileExistsError):
        return f"{error.filename2 or error.filename} was created meanwhile and is not overwritten"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
