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
    `tolerance` times the picture's diagonal; precision is the share of right ones in the
    prediction's boundary, recall in the target's. Void is not judged: where a class meets void the
    target has no boundary, and the precision leaves out what the prediction has within the
    tolerance of void. NaN for a class without a boundary that can be judged.
    """
    _check_shapes(target, prediction)
    radius = tolerance * float(np.hypot(*target.shape))
    known = target != IGNORE_INDEX
    judged = np.ones_like(known) if known.all() else _distance_to(~known) > radius
    scores = np.full(num_classes, np.nan)
    for class_id in range(num_classes):
        true = _boundary(target == class_id, known)
        found = _boundary(prediction == class_id, np.ones_like(known))
        scores[class_id] = _boundary_score(true, found, judged, radius)
    return scores


def _boundary_score(
    true: NDArray[np.bool_], found: NDArray[np.bool_], judged: NDArray[np.bool_], radius: float
) -> float:
    if not true.any():
        return 0.0 if (found & judged).any() else np.nan
    if not found.any():
        return 0.0
    near_true = _distance_to(true) <= radius
    recall = float((_distance_to(found)[true] <= radius).mean())
    counted = found & judged
    precision = float(near_true[counted if counted.any() else found].mean())
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _distance_to(region: NDArray[np.bool_]) -> FloatArray:
    """From each pixel to the nearest of the region, in pixels."""
    from scipy.ndimage import distance_transform_edt  # of the `train` extra; the rest needs NumPy

    return distance_transform_edt(~region)


def mean_over_pictures(scores: Sequence[FloatArray]) -> FloatArray:
    """(num_classes,) mean of each class over the pictures that have it; NaN if none has."""
    stacked = np.stack(scores)
    present = ~np.isnan(stacked)
    return _divide(np.where(present, stacked, 0).sum(0), present.sum(0))


def _check_shapes(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape")


def _boundary(region: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region's pixels with a known neighbour, of four, outside it; the picture's edge is no
    boundary."""
    outside = np.pad(known & ~region, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    return region & beside


def _divide(numerator: NDArray | int, denominator: NDArray | int) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64)


def nan_mean(values: FloatArray) -> float:
    """Mean of those that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
