"""Evaluation of the networks against a label image, the visitor's or an example's."""

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
    """One result evaluated against the ground truth.

    Attributes:
        result: The evaluated result.
        errors: (H, W) uint8, as returned by `comparison.errors`.
        iou: (num_classes,); NaN for classes absent from the ground truth.
        mean_iou: Mean over the classes present in the ground truth, the same for every network.
        pixel_accuracy: Fraction of labelled pixels that are correct.
    """

    result: ModelResult
    errors: NDArray[np.uint8]
    iou: FloatArray
    mean_iou: float
    pixel_accuracy: float


def judge(target: NDArray[np.uint8], class_names: Sequence[str], result: ModelResult) -> Judgement:
    """Evaluate a result against a target of ids into `class_names`.

    Classes of the network that are not in `class_names` count as wrong wherever they are predicted.
    """
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
