"""The field's metrics, all from one confusion matrix, and SegNet's boundary F1.

Absent classes, in the target and the prediction both, are NaN and left out of means.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = 255
FloatArray = NDArray[np.float64]


def confusion_matrix(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int
) -> NDArray[np.int64]:
    """(num_classes, num_classes) pixel counts, [target, prediction]; void pixels of the target are
    left out. target, prediction: class ids of one shape; ValueError for an id beyond them."""
    _check_shapes(target, prediction)
    known = target != IGNORE_INDEX
    for name, ids in (("target", target[known]), ("prediction", prediction[known])):
        if ids.size and ids.max() >= num_classes:
            raise ValueError(f"{name} has the id {ids.max()}; expected 0 to {num_classes - 1}")
    pairs = target[known].astype(np.int64) * num_classes + prediction[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_iou(matrix: NDArray[np.int64]) -> FloatArray:
    """(num_classes,) TP / (TP + FP + FN)."""
    return _divide(np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix))


def per_class_accuracy(matrix: NDArray[np.int64]) -> FloatArray:
    """(num_classes,) TP / (TP + FN), the recall."""
    return _divide(np.diag(matrix), matrix.sum(1))


def mean_iou(matrix: NDArray[np.int64]) -> float:
    return nan_mean(per_class_iou(matrix))


def mean_accuracy(matrix: NDArray[np.int64]) -> float:
    """Class average accuracy."""
    return nan_mean(per_class_accuracy(matrix))


def pixel_accuracy(matrix: NDArray[np.int64]) -> float:
    """Global accuracy: correct pixels over all."""
    return float(_divide(np.diag(matrix).sum(), matrix.sum()))


def frequency_weighted_iou(matrix: NDArray[np.int64]) -> float:
    """IoU weighted by each class's share of the target's pixels."""
    iou = per_class_iou(matrix)
    weights = matrix.sum(1)
    return float(_divide(np.nansum(weights * np.nan_to_num(iou)), weights.sum()))


def boundary_f1(
    target: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    num_classes: int,
    *,
    tolerance: float = 0.0075,
) -> FloatArray:
    """(num_classes,) boundary F1 of one picture (Csurka et al., BMVC 2013; SegNet, section 4.2).

    A boundary pixel of one map is right if the other map has a boundary pixel of the class within
    `tolerance` times the picture's diagonal. NaN for a class that neither map has; void pixels are
    of no class in either map.
    """
    from scipy.ndimage import distance_transform_edt  # of the `train` extra; the rest needs NumPy

    _check_shapes(target, prediction)
    radius = tolerance * float(np.hypot(*target.shape))
    known = target != IGNORE_INDEX
    scores = np.full(num_classes, np.nan)
    for class_id in range(num_classes):
        true = _boundary((target == class_id) & known)
        found = _boundary((prediction == class_id) & known)
        if not true.any() and not found.any():
            continue
        if not true.any() or not found.any():
            scores[class_id] = 0.0
            continue
        precision = float((distance_transform_edt(~true)[found] <= radius).mean())
        recall = float((distance_transform_edt(~found)[true] <= radius).mean())
        total = precision + recall
        scores[class_id] = 2 * precision * recall / total if total else 0.0
    return scores


def mean_over_pictures(scores: Sequence[FloatArray]) -> FloatArray:
    """(num_classes,) mean of each class over the pictures that have it; NaN if none has."""
    stacked = np.stack(scores)
    present = ~np.isnan(stacked)
    return _divide(np.where(present, stacked, 0).sum(0), present.sum(0))


def _check_shapes(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape")


def _boundary(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region's pixels with a neighbour, of four, outside it; the picture's edge is no
    boundary."""
    padded = np.pad(region, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside


def _divide(numerator: NDArray | int, denominator: NDArray | int) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64)


def nan_mean(values: FloatArray) -> float:
    """Mean of those that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
