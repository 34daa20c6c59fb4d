"""Contact sheets of results: the best and worst images, and the examples of a model card."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.dataset import IGNORE_INDEX, SegmentationData
from segmodels.data.resizing import resize
from segmodels.evaluation.evaluator import Evaluation
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import SegmentationModel
from segmodels.utils.contact_sheet import LegendEntry, Tile, contact_sheet
from segmodels.utils.files import atomic_write
from segmodels.utils.formatting import percent

CELL = 320  # longer side of the images on a sheet, in pixels
WRONG, RIGHT, VOID = (215, 25, 28), (230, 230, 230), (255, 255, 255)
MAX_EXAMPLES_BYTES = 100_000  # size of the file, since cards are viewed online


def image_grid(
    segmenter: Segmenter, data: SegmentationData, evaluation: Evaluation, count: int = 4
) -> Image.Image:
    """Draw the images with the highest and the lowest mean IoU, worst last.

    Args:
        segmenter: The network that was evaluated.
        data: The split that it was evaluated on.
        evaluation: The result of the evaluation.
        count: Number of best and of worst images.

    Returns:
        RGB sheet with a row per image (with name and mean IoU, ground truth, prediction, errors in
        red and void in white) and a legend of the classes.
    """
    rows = []
    for place in best_and_worst(np.array([i.mean_iou for i in evaluation.images]), count):
        result = evaluation.images[place]
        note = f"mean IoU {percent(result.mean_iou)} %"
        rows.append(_comparison(segmenter, data, result.index, result.name, note))
    return contact_sheet(rows, legend=_legend(segmenter.model))


def best_and_worst(ious: NDArray[np.float64], count: int) -> list[int]:
    """Indices of the `count` highest and lowest values, highest first.

    Without duplicates and NaN.
    """
    order = [int(i) for i in np.argsort(-ious, kind="stable") if not math.isnan(ious[i])]
    return order if len(order) <= 2 * count else [*order[:count], *order[-count:]]


def examples_sheet(segmenter: Segmenter, images: Sequence[Path], credit: str = "") -> Image.Image:
    """Draw predictions for images without ground truth, for a model card.

    Args:
        segmenter: The network.
        images: Image files, one per row.
        credit: Credit line for the images, at the bottom.

    Returns:
        RGB sheet with a legend. Each row shows the image, an overlay of the classes, and the
        confidence in greyscale, where black is 0.2 or less.
    """
    rows = []
    for path in images:
        result = segmenter(path)
        grey = ((result.confidence - 0.2).clip(0, 0.8) / 0.8 * 255).astype(np.uint8)
        overlay = np.array(result.overlay(0.7))
        rows.append(
            [
                Tile(Image.fromarray(resize(result.array, CELL)), path.name),
                Tile(Image.fromarray(resize(overlay, CELL)), "classes"),
                Tile(
                    Image.fromarray(resize(grey, CELL)).convert("RGB"),
                    "confidence (dark: uncertain)",
                ),
            ]
        )
    return contact_sheet(rows, legend=_legend(segmenter.model), footer=credit)


def write_examples(image: Image.Image, path: Path) -> None:
    """Write a JPEG of at most MAX_EXAMPLES_BYTES (or of quality 40) atomically."""
    for quality in range(88, 39, -8):
        buffer = BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_EXAMPLES_BYTES:
            break
    with atomic_write(path) as scratch:
        scratch.write_bytes(buffer.getvalue())


def _comparison(
    segmenter: Segmenter, data: SegmentationData, index: int, title: str, note: str
) -> list[Tile]:
    image, target = data.with_channels(segmenter.model.in_channels).pair(index)
    result = segmenter(image)
    prediction = result.class_map
    colors = np.full((256, 3), VOID, np.uint8)
    colors[: len(data.class_names)] = segmenter.model.palette
    errors = np.where((target != prediction)[..., None], WRONG, RIGHT).astype(np.uint8)
    errors[target == IGNORE_INDEX] = VOID
    panels = {
        "ground truth": colors[target],
        "prediction": colors[prediction],
        "errors": errors,
    }
    tiles = [Tile(Image.fromarray(resize(result.array, CELL)), title, note)]
    for name, panel in panels.items():
        tiles.append(Tile(Image.fromarray(resize(panel, CELL, nearest=True)), name))
    return tiles


def _legend(model: SegmentationModel) -> list[LegendEntry]:
    return list(zip(model.class_names, model.palette, strict=True))
