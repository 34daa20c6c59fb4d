"""How far the networks are from a label image, the visitor's or an example's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.metrics import (
    IGNORE_INDEX,
    FloatArray,
    confusion_matrix,
    nan_mean,
    per_class_iou,
    pixel_accuracy,
)
from segmodels.inference.comparison import ModelResult, errors


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
