"""Semantic segmentation metrics, from the confusion matrix and from boundaries.

Classes that are absent from both the target and the prediction are NaN and excluded from means.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = 255
BOUNDARY_TOLERANCE = 0.0075  # of the image's diagonal
# Boundary F1 is not judged if at least this share of a class's outline is next to void. In PASCAL
# VOC, whose outlines are void, the share is 0.99 to 1.00 for every class; in CamVid 0.29 to 0.61.
MAX_VOID_OUTLINE = 0.9
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def confusion_matrix(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int
) -> IntArray:
    """Count the pixels of each pair of target and predicted class.

    Args:
        target: (H, W) class ids, 255 for void.
        prediction: (H, W) class ids.
        num_classes: Ids are 0 to num_classes - 1.

    Returns:
        (num_classes, num_classes) counts, indexed [target, prediction], excluding void pixels.

    Raises:
        ValueError: If the shapes differ or an id is out of range.
    """
    _check_shapes(target, prediction)
    known = target != IGNORE_INDEX
    for name, ids in (("target", target[known]), ("prediction", prediction[known])):
        if ids.size and ids.max() >= num_classes:
            raise ValueError(f"{name} has the id {ids.max()}; expected 0 to {num_classes - 1}")
    pairs = target[known].astype(np.int64) * num_classes + prediction[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_iou(matrix: IntArray) -> FloatArray:
    """(num_classes,) intersection over union, TP / (TP + FP + FN)."""
    return _divide(np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix))


def per_class_dice(matrix: IntArray) -> FloatArray:
    """(num_classes,) Dice coefficient, the same as F1: 2 TP / (2 TP + FP + FN)."""
    return _divide(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def per_class_precision(matrix: IntArray) -> FloatArray:
    """(num_classes,) TP / (TP + FP); NaN for a class that is never predicted."""
    return _divide(np.diag(matrix), matrix.sum(0))


def per_class_accuracy(matrix: IntArray) -> FloatArray:
    """(num_classes,) TP / (TP + FN), also called recall; NaN for a class absent from the target."""
    return _divide(np.diag(matrix), matrix.sum(1))


def present_classes(matrix: IntArray) -> NDArray[np.bool_]:
    """(num_classes,) whether the class occurs in the target."""
    return matrix.sum(1) > 0


def mean_iou(matrix: IntArray) -> float:
    """Mean of `per_class_iou` over the classes in the target or the prediction."""
    return nan_mean(per_class_iou(matrix))


def mean_accuracy(matrix: IntArray) -> float:
    """Mean of `per_class_accuracy` over the classes in the target."""
    return nan_mean(per_class_accuracy(matrix))


def pixel_accuracy(matrix: IntArray) -> float:
    """Global accuracy: fraction of correctly classified pixels."""
    return float(_divide(np.diag(matrix).sum(), matrix.sum()))


def frequency_weighted_iou(matrix: IntArray) -> float:
    """Mean IoU, weighted by the frequency of each class in the target."""
    iou = per_class_iou(matrix)
    weights = matrix.sum(1)
    return float(_divide(np.nansum(weights * np.nan_to_num(iou)), weights.sum()))


def boundary_f1(
    target: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    num_classes: int,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> FloatArray:
    """Boundary F1 of one image (Csurka et al., BMVC 2013; SegNet, section 4.2).

    A boundary pixel of one map is correct if the other map has a boundary pixel of the same class
    within the tolerance. Precision is the fraction of correct pixels in the predicted boundary,
    recall that in the target's boundary. Void is ignored: the target has no boundary between a
    class and void, and precision excludes predicted boundaries within the tolerance of void. If all
    outlines are void, too few pixels remain for a meaningful result; see `void_outline_counts`.

    Args:
        target: (H, W) class ids, 255 for void.
        prediction: (H, W) class ids.
        num_classes: Ids are 0 to num_classes - 1.
        tolerance: Fraction of the image's diagonal.

    Returns:
        (num_classes,) in [0, 1]; NaN for a class without a boundary in the target, unless the
        prediction has one beyond the tolerance of void.

    Raises:
        ValueError: If the shapes differ.
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


def void_outline_counts(
    target: NDArray[np.uint8], num_classes: int, *, tolerance: float = BOUNDARY_TOLERANCE
) -> IntArray:
    """Count the outline pixels of each class next to void, where boundary F1 is undefined.

    The outline of a class consists of its pixels with a 4-neighbour that is void or of another
    class.

    Args:
        target: (H, W) class ids, 255 for void.
        num_classes: Ids are 0 to num_classes - 1.
        tolerance: Fraction of the image's diagonal.

    Returns:
        (num_classes, 2) counts: outline pixels next to void or within the tolerance of it, and all
        outline pixels.
    """
    void = target == IGNORE_INDEX
    radius = max(1.0, tolerance * float(np.hypot(*target.shape)))
    at_void = _distance_to(void) <= radius if void.any() else np.zeros_like(void)
    counts = np.zeros((num_classes, 2), np.int64)
    for class_id in range(num_classes):
        outline = _boundary(target == class_id, np.ones_like(void))
        counts[class_id] = (outline & at_void).sum(), outline.sum()
    return counts


def void_outline_share(counts: IntArray) -> FloatArray:
    """Share in [0, 1] from (..., 2) `void_outline_counts`; NaN for classes without outlines."""
    return _divide(counts[..., 0], counts[..., 1])


def mean_over_images(scores: Sequence[FloatArray]) -> FloatArray:
    """(num_classes,) mean of each class over the images where it is not NaN; NaN if none."""
    stacked = np.stack(scores)
    present = ~np.isnan(stacked)
    return _divide(np.where(present, stacked, 0).sum(0), present.sum(0))


def nan_mean(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


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
    """Distance of each pixel to the nearest pixel of the region, in pixels."""
    from scipy.ndimage import distance_transform_edt  # extra `train`; the rest needs only NumPy

    return distance_transform_edt(~region)


def _check_shapes(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape")


def _boundary(region: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of the region with a known 4-neighbour outside the region but inside the image."""
    outside = np.pad(known & ~region, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    return region & beside


def _divide(numerator: NDArray | int, denominator: NDArray | int) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64)
