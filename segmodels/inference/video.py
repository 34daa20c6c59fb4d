"""Segmentation of videos, frame by frame."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from segmodels.data.video_io import (
    Frame,
    Video,
    VideoLimits,
    open_video,
    read_comment,
    video_writer,
)
from segmodels.inference.decoded_image import DecodedImage, file_digest
from segmodels.inference.result_files import (
    CLASS_IDS_KIND,
    OVERLAY_KIND,
    Job,
    Origin,
    ResultFormat,
)
from segmodels.inference.results import Segmentation
from segmodels.inference.segmenter import Segmenter
from segmodels.utils.files import atomic_write

Item = TypeVar("Item")


def read_video_metadata(path: Path) -> dict[str, str]:
    """Read the `Origin.metadata` of a video; empty for other files."""
    try:
        found = json.loads(read_comment(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# Class ids as lossless FFV1 in Matroska (pixel value = class id), and the overlay for viewing.
VIDEO_RESULTS = ResultFormat(".mkv", ".mp4", read_video_metadata)


def predict_video(
    job: Job,
    segmenter: Segmenter,
    origin: Origin,
    *,
    batch_size: int = 1,
    limits: VideoLimits | None = None,
) -> Iterator[tuple[int, int | None]]:
    """Segment a video, and write its class ids and overlay with the original timestamps.

    Args:
        job: Input and output paths; the outputs are written atomically.
        segmenter: The segmenter.
        origin: Model and settings, recorded in the files; includes working size and opacity.
        batch_size: Number of frames per forward pass.
        limits: As in `open_video`.

    Yields:
        Number of frames done, and estimated number of frames, None if unknown.

    Raises:
        VideoError: If the video cannot be read.
        FileExistsError: If another file was created at an output path meanwhile.
        OSError: If the files cannot be written.
    """
    digest = file_digest(job.image) if job.image.is_file() else ""
    with (
        open_video(job.image, limits) as video,
        atomic_write(job.class_ids, replace=job.may_replace) as ids_file,
        atomic_write(job.overlay, replace=job.may_replace) as overlay_file,
        video_writer(
            ids_file, video, lossless=True, metadata=_comment(origin, digest, CLASS_IDS_KIND)
        ) as class_ids,
        video_writer(
            overlay_file, video, metadata=_comment(origin, digest, OVERLAY_KIND)
        ) as overlays,
    ):
        results = segment_video(video, segmenter, origin.working_size, batch_size=batch_size)
        for done, (frame, result) in enumerate(results, 1):
            class_ids.write(result.class_map, frame.pts)
            overlays.write(np.asarray(result.overlay(origin.opacity)), frame.pts)
            yield done, video.frame_count


def segment_video(
    video: Video,
    segmenter: Segmenter,
    working_size: int | None = None,
    *,
    batch_size: int = 1,
) -> Iterator[tuple[Frame, Segmentation]]:
    """Segment the frames of an open video.

    Args:
        video: The video, see `open_video`.
        segmenter: The segmenter.
        working_size: As for `Segmenter`.
        batch_size: Number of frames per forward pass.

    Yields:
        Each frame with its segmentation.

    Raises:
        VideoError: If the video cannot be read.
    """
    for frames in _batches(video.frames(), batch_size):
        images = [decoded(frame) for frame in frames]
        pixels = torch.cat([segmenter.pixels(image, working_size) for image in images])
        yield from zip(frames, segmenter.segment_batch(images, pixels), strict=True)


def decoded(frame: Frame) -> DecodedImage:
    """Convert a frame for `Segmenter`; without a digest."""
    return DecodedImage(Image.fromarray(frame.image), digest="")


def _comment(origin: Origin, digest: str, kind: str) -> Mapping[str, str]:
    return {"comment": json.dumps(origin.metadata(digest, kind))}


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
