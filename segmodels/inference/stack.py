"""Segmentation of TIFF stacks, page by page."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, AppendingTiffWriter

from segmodels.data.image_io import PictureError, page_count
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

SUFFIXES = (".tif", ".tiff")
METADATA = "segmodels"  # entry for metadata in the first page's ImageDescription, which is JSON


def is_stack(path: Path) -> bool:
    """Whether a file is a TIFF with several pages."""
    try:
        return path.suffix.lower() in SUFFIXES and page_count(path) > 1
    except PictureError:  # reported when the file is read as an image
        return False


def read_stack_metadata(path: Path) -> dict[str, str]:
    """Read the `Origin.metadata` of a stack; empty for other files."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return {}
    try:
        with Image.open(path, formats=["TIFF"]) as image:  # does not decode the pixels
            found = json.loads(str(image.tag_v2.get(IMAGEDESCRIPTION)))[METADATA]  # type: ignore[attr-defined]
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, UnidentifiedImageError):
        return {}
    return found if isinstance(found, dict) else {}


# Class ids as palette images (pixel value = class id), and overlays in RGB.
STACK_RESULTS = ResultFormat(".tif", ".tif", read_stack_metadata)


def predict_stack(
    job: Job, segmenter: Segmenter, origin: Origin, *, batch_size: int = 1
) -> Iterator[tuple[int, int]]:
    """Segment a stack, and write its class ids and overlays as stacks.

    Args:
        job: Input and output paths; the outputs are written atomically.
        segmenter: The segmenter.
        origin: Model and settings, recorded in the files; includes working size and opacity.
        batch_size: Maximum number of pages per forward pass, all of the same size.

    Yields:
        Number of pages done, and total number of pages.

    Raises:
        PictureError: If a page cannot be read.
        FileExistsError: If another file was created at an output path meanwhile.
        OSError: If the files cannot be written.
    """
    count, digest = page_count(job.image), file_digest(job.image)
    classes = {"classes": list(segmenter.model.class_names)}
    with (
        atomic_write(job.class_ids, replace=job.may_replace) as ids_file,
        atomic_write(job.overlay, replace=job.may_replace) as overlay_file,
        closing(_Pages(ids_file, origin.metadata(digest, CLASS_IDS_KIND), classes)) as ids,
        closing(_Pages(overlay_file, origin.metadata(digest, OVERLAY_KIND))) as overlays,
    ):
        results = _segmented(job.image, digest, count, segmenter, origin.working_size, batch_size)
        for done, result in enumerate(results, 1):
            ids.append(result.indexed())
            overlays.append(result.overlay(origin.opacity))
            yield done, count


def _segmented(
    path: Path,
    digest: str,
    count: int,
    segmenter: Segmenter,
    working_size: int | None,
    batch_size: int,
) -> Iterator[Segmentation]:
    for start in range(0, count, batch_size):
        pages = range(start, min(start + batch_size, count))
        prepared = [_prepared(path, page, digest, segmenter, working_size) for page in pages]
        for _, group in groupby(prepared, key=lambda one: one[1].shape):
            images, pixels = zip(*group, strict=True)
            yield from segmenter.segment_batch(images, torch.cat(pixels))


def _prepared(
    path: Path, page: int, digest: str, segmenter: Segmenter, working_size: int | None
) -> tuple[DecodedImage, torch.Tensor]:
    try:
        image = DecodedImage.read(
            path,
            max_pixels=segmenter.max_pixels,
            channels=segmenter.model.in_channels,
            page=page,
            digest=digest,
        )
    except PictureError as error:
        raise PictureError(f"page {page}: {error}") from error
    return image, segmenter.pixels(image, working_size)


class _Pages:
    """Writes a TIFF page by page.

    Args:
        path: The file.
        metadata: Metadata, stored in the description of the first page.
        entries: Further entries of that description.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, str], entries: Mapping[str, object] | None = None
    ) -> None:
        self._description = json.dumps({METADATA: dict(metadata)} | dict(entries or {}))
        self._writer = AppendingTiffWriter(path, new=True)
        self._tags = {IMAGEDESCRIPTION: self._description}

    def append(self, page: Image.Image) -> None:
        """Compress and write a page."""
        page.save(self._writer, format="TIFF", compression="tiff_deflate", tiffinfo=self._tags)
        self._writer.newFrame()
        self._tags = {}

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
