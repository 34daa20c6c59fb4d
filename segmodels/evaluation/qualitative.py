"""A picture grid: where a network is at its best and at its worst, beside the ground truth."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segmodels.data.dataset import IGNORE_INDEX, SegmentationData
from segmodels.data.image_io import resize
from segmodels.evaluation.evaluator import Evaluation
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import SegmentationModel
from segmodels.utils.formatting import percent

CELL = 320  # pixels, the longer side of a picture in the grid
GAP, LINE = 8, 22
COLUMNS = ("picture", "ground truth", "prediction", "errors")
WRONG, RIGHT, VOID = (215, 25, 28), (230, 230, 230), (255, 255, 255)


def picture_grid(
    segmenter: Segmenter, data: SegmentationData, evaluation: Evaluation, count: int = 4
) -> Image.Image:
    """The `count` pictures of the highest mean IoU and the `count` of the lowest, worst last; a row
    each: picture, ground truth, prediction, and where they differ (red; void is white), under their
    name and mean IoU. RGB, with a legend of the classes."""
    rows = []
    for index in best_and_worst(evaluation.picture_ious, count):
        iou = percent(float(evaluation.picture_ious[index]))
        name = data.samples[index].picture.name
        rows.append((f"{name}: mean IoU {iou} %", _panels(segmenter, data, index)))
    return draw_grid(COLUMNS, rows, segmenter.model)


def best_and_worst(ious: NDArray[np.float64], count: int) -> list[int]:
    """Indices of the `count` highest and the `count` lowest figures, highest first; no picture
    twice, and none whose figure is NaN."""
    order = [int(i) for i in np.argsort(-ious, kind="stable") if not math.isnan(ious[i])]
    return order if len(order) <= 2 * count else [*order[:count], *order[-count:]]


def _panels(segmenter: Segmenter, data: SegmentationData, index: int) -> list[Image.Image]:
    picture, target = data.pair(index)
    prediction = segmenter(picture).class_map
    colors = np.full((256, 3), VOID, np.uint8)
    colors[: len(data.class_names)] = segmenter.model.palette
    void = target == IGNORE_INDEX
    errors = np.where((target != prediction)[..., None], WRONG, RIGHT)
    errors = np.where(void[..., None], VOID, errors).astype(np.uint8)
    panels = [Image.fromarray(resize(picture, CELL))]
    for panel in (colors[target], colors[prediction], errors):
        panels.append(Image.fromarray(resize(panel, CELL, nearest=True)))
    return panels


def draw_grid(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    model: SegmentationModel,
    note: str = "",
) -> Image.Image:
    """Rows of panels, of at most CELL pixels each way, under their captions, with a head of column
    names, a legend of the model's classes and a last line. RGB."""
    legend = _legend(model.class_names, model.palette, len(columns) * (CELL + GAP) - GAP)
    heights = [LINE + max(panel.height for panel in panels) + GAP for _, panels in rows]
    width = len(columns) * (CELL + GAP) + GAP
    height = LINE + sum(heights) + legend.height + LINE * bool(note) + 2 * GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for number, name in enumerate(columns):
        draw.text((GAP + number * (CELL + GAP), 4), name, "black", font)
    top = LINE
    for (caption, panels), height in zip(rows, heights, strict=True):
        draw.text((GAP, top + 4), caption, "black", font)
        for number, panel in enumerate(panels):
            canvas.paste(panel, (GAP + number * (CELL + GAP), top + LINE))
        top += height
    canvas.paste(legend, (GAP, top + GAP))
    draw.text((GAP, top + GAP + legend.height + 2), note, "black", font)
    return canvas


def _legend(names: Sequence[str], palette: Sequence[Sequence[int]], width: int) -> Image.Image:
    """A square and a name for each class, in lines of at most `width` pixels."""
    font = ImageFont.load_default(14)
    places, x, y = [], 0, 0
    for name in names:
        needed = round(font.getlength(name)) + LINE + 16
        if x and x + needed > width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + LINE), "white")
    draw = ImageDraw.Draw(legend)
    for name, color, (left, top) in zip(names, palette, places, strict=True):
        box = (left, top + 2, left + 15, top + 17)
        draw.rectangle(box, fill=tuple(color), outline="black")
        draw.text((left + LINE, top + 2), name, "black", font)
    return legend
