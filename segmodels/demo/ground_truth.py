"""A label image, the visitor's or an example's: read, and how far the networks are from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.camvid import camvid_encoding
from segmodels.data.image_io import PictureError
from segmodels.data.labels import DataError, LabelEncoding
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


@dataclass(frozen=True)
class Judgement:
    """One result against the ground truth.

    errors: (H, W) uint8, as `comparison.errors`. iou: (num_classes,), NaN for classes that the
    ground truth does not have; mean_iou is over those that it has, the same for every network.
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
    """The class ids of a label image.

    Args:
        path: an image of ids, of the palette's colors with black for void, or in one of the
            encodings of the data set that the classes are those of.
        size: (H, W) of the image that it belongs to.
        class_names: what the ids stand for.
        palette: [r, g, b] of each class.

    Returns:
        (H, W) uint8, void as 255.

    Raises:
        PictureError: what is wrong with the file.
    """
    path = Path(path)
    _check_file(path, size)
    try:
        return label_encoding(class_names, palette).read(path)
    except DataError as error:
        problem = str(error).replace(str(path), path.name).split("; ")[0]
        raise PictureError(f"{problem}; {expected(len(class_names))}") from error


def label_encoding(class_names: Sequence[str], palette: Sequence[Sequence[int]]) -> LabelEncoding:
    """What the pixels of label images for these classes may say."""
    colors = {(int(r), int(g), int(b)): number for number, (r, g, b) in enumerate(palette)}
    return camvid_encoding(class_names, colors) or LabelEncoding(
        len(class_names), colors={(0, 0, 0): IGNORE_INDEX, **colors}
    )


def expected(num_classes: int) -> str:
    """What a label image may hold."""
    return (
        f"expected class ids from 0 to {num_classes - 1}, 8-bit grey or palette, with 255 for "
        "unlabelled, or the classes' colours with black for unlabelled"
    )


def _check_file(path: Path, size: tuple[int, int]) -> None:
    """PictureError for a file that is no image of this size in a format without loss."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            found = image.size
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise PictureError(
            f"{path.name} cannot be read as a label image; expected {', '.join(FORMATS)}"
        ) from error
    if found != size[::-1]:
        raise PictureError(
            f"{path.name} is {found[0]} x {found[1]} pixels, the image {size[1]} x {size[0]}; "
            "they must be equal"
        )


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
