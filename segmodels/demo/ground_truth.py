"""A label picture, the visitor's or an example's: read, and how far the networks are from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.image_io import PictureError
from segmodels.evaluation.metrics import (
    IGNORE_INDEX,
    FloatArray,
    confusion_matrix,
    nan_mean,
    per_class_iou,
    pixel_accuracy,
)
from segmodels.inference.comparison import ModelResult, errors

FORMATS = ("PNG", "BMP", "GIF", "TIFF")  # without loss
EXPECTED = "expected class ids, 8-bit grey or palette, with 255 for void, or the classes' colours"


@dataclass(frozen=True)
class Judgement:
    """One result against the truth.

    errors: (H, W) uint8, as `comparison.errors`. iou: (num_classes,), NaN for classes that the truth does
    not have; mean_iou is over those that it has, the same for every network.
    """

    result: ModelResult
    errors: NDArray[np.uint8]
    iou: FloatArray
    mean_iou: float
    pixel_accuracy: float


def read_label(
    path: str | Path,
    size: tuple[int, int],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> NDArray[np.uint8]:
    """(H, W) class ids, void as 255, of a label picture for a picture of `size`, (H, W): a picture
    of ids, or one in the palette's colours with black for void. PictureError says what is wrong."""
    name = Path(path).name
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.size != size[::-1]:
                raise PictureError(
                    f"{name} is {image.width} x {image.height} pixels, the picture {size[1]} x "
                    f"{size[0]}; they must be equal"
                )
            if image.mode in ("1", "L", "P"):
                return _checked(np.array(image, np.uint8), name, len(class_names))
            if image.mode in ("RGB", "RGBA"):
                return _by_color(np.array(image.convert("RGB")), name, palette)
            mode = image.mode
    except PictureError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise PictureError(
            f"{name} cannot be read as a label ({', '.join(FORMATS)}): {EXPECTED}"
        ) from error
    raise PictureError(f"{name} has mode {mode}; {EXPECTED}")


def _checked(ids: NDArray[np.uint8], name: str, num_classes: int) -> NDArray[np.uint8]:
    unknown = np.unique(ids[(ids >= num_classes) & (ids != IGNORE_INDEX)])
    if unknown.size:
        listed = ", ".join(map(str, unknown[:5]))
        raise PictureError(
            f"{name} has the ids {listed}; expected 0 to {num_classes - 1}, or {IGNORE_INDEX} for "
            "void, in the order of the legend"
        )
    return ids


def _by_color(
    pixels: NDArray[np.uint8], name: str, palette: Sequence[Sequence[int]]
) -> NDArray[np.uint8]:
    keys = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    ids = np.full(keys.shape, IGNORE_INDEX, np.uint8)
    known = keys == 0
    for number, (red, green, blue) in enumerate(palette):
        here = keys == (red << 16 | green << 8 | blue)
        ids[here] = number
        known |= here
    if not known.all():
        raise PictureError(
            f"{name} has colours of no class, {tuple(map(int, pixels[~known][0]))} for one; "
            + EXPECTED
        )
    return ids


def judge(target: NDArray[np.uint8], class_names: Sequence[str], result: ModelResult) -> Judgement:
    """The result against a target of ids into `class_names`. A class of the network's that is not
    among them is wrong wherever it is given."""
    names = list(class_names)
    table = [
        names.index(name) if name in names else len(names)
        for name in result.segmentation.class_names
    ]
    prediction = np.array(table, np.uint8)[result.segmentation.class_map]
    matrix = confusion_matrix(target, prediction, len(names) + 1)
    iou = np.where(matrix.sum(1) > 0, per_class_iou(matrix), np.nan)[:-1]
    return Judgement(
        result=result,
        errors=errors(target, prediction, ignore_index=IGNORE_INDEX),
        iou=iou,
        mean_iou=nan_mean(iou),
        pixel_accuracy=pixel_accuracy(matrix),
    )
