"""Metrics of membrane segmentation in electron microscopy, based on the separated cells.

Source: Arganda-Carreras et al., Frontiers in Neuroanatomy 2015, on the ISBI 2012 challenge. The
metrics are restricted to the foreground: pixels labelled as membrane or void are ignored. Let p_ij
be the fraction of foreground pixels in cell i of the prediction and cell j of the target, and s_i
and t_j its sums over j and i:

    V-Rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2)
    V-Info = I(S; T) / (H(S) / 2 + H(T) / 2)

Both are F-scores of a split score and a merge score; 1 is perfect. The Rand error of 2012, as in
the U-Net paper, is 1 - V-Rand. The warping error (Jain et al., 2010) counts splits, mergers and
holes, but not the width of membranes or small shifts.

The challenge thresholded the membrane probability and reported the best result of each metric, on
hidden sections; `best_of_thresholds` does so on the sections given.
"""

from collections import deque
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.metrics import IGNORE_INDEX

IntArray = NDArray[np.int64]
THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))


@dataclass(frozen=True)
class MembraneMetrics:
    """Metrics of one section, or their means over several, in [0, 1].

    Attributes:
        v_rand: Foreground-restricted Rand score; 1 is perfect.
        v_info: Foreground-restricted information-theoretic score; 1 is perfect.
        pixel_error: Fraction of the labelled pixels with a wrong membrane label; 0 is perfect.
        warping_error: Fraction that is still wrong after deforming the target without changing its
            topology; 0 is perfect.
    """

    v_rand: float
    v_info: float
    pixel_error: float
    warping_error: float

    def to_json(self) -> dict[str, Any]:
        """The metrics and the Rand error, with NaN as None."""
        values = {
            "v_rand": self.v_rand,
            "rand_error": 1 - self.v_rand,
            "v_info": self.v_info,
            "pixel_error": self.pixel_error,
            "warping_error": self.warping_error,
        }
        return {name: None if np.isnan(value) else value for name, value in values.items()}


def membrane_metrics(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], membrane_id: int
) -> MembraneMetrics:
    """Evaluate one section.

    The cells of the target are the 4-connected components of its non-membrane pixels. The predicted
    membranes are removed first, by assigning their pixels to the nearest predicted cell, so that
    the width of membranes has no influence.

    Args:
        target: (H, W) class ids, 255 for void.
        prediction: (H, W) class ids of the same shape.
        membrane_id: Class id of the membranes.
    """
    counted = (target != membrane_id) & (target != IGNORE_INDEX)
    cells = connected_cells(target, membrane_id)[counted]
    found = thinned_cells(prediction, membrane_id)[counted]
    known = target != IGNORE_INDEX
    wrong = (target == membrane_id) != (prediction == membrane_id)
    pixel_error = warping_error = float("nan")
    if known.any():
        warped = warp(target != membrane_id, prediction != membrane_id, known)
        pixel_error = float(wrong[known].mean())
        warping_error = float((warped != (prediction != membrane_id))[known].mean())
    counts = cell_overlap(cells, found)
    return MembraneMetrics(v_rand(counts), v_info(counts), pixel_error, warping_error)


def metrics_by_threshold(
    target: NDArray[np.uint8], probability: NDArray[np.float32], membrane_id: int
) -> list[MembraneMetrics]:
    """Evaluate one section at each of `THRESHOLDS`.

    Args:
        target: (H, W) class ids, 255 for void.
        probability: (H, W) probability of the membrane class, in [0, 1]; pixels at or above the
            threshold are membranes.
        membrane_id: Class id of the membranes.
    """
    cell_id = 1 if membrane_id == 0 else 0
    return [
        membrane_metrics(
            target,
            np.where(probability >= threshold, membrane_id, cell_id).astype(np.uint8),
            membrane_id,
        )
        for threshold in THRESHOLDS
    ]


def best_of_thresholds(
    sections: list[list[MembraneMetrics]],
) -> dict[str, dict[str, float | None]]:
    """The best mean over the sections of each metric, and its threshold.

    Args:
        sections: Results of `metrics_by_threshold`.

    Returns:
        "value" and "threshold" for each metric of `MembraneMetrics.to_json`; None if undefined.
    """
    means = [mean_membrane_metrics(list(each)).to_json() for each in zip(*sections, strict=True)]
    best: dict[str, dict[str, float | None]] = {}
    for name in means[0]:
        choose = min if name.endswith("error") else max
        defined = [
            (value, threshold)
            for mean, threshold in zip(means, THRESHOLDS, strict=True)
            if (value := mean[name]) is not None
        ]
        value, threshold = choose(defined, key=lambda pair: pair[0], default=(None, None))
        best[name] = {"value": value, "threshold": threshold}
    return best


def mean_membrane_metrics(sections: list[MembraneMetrics]) -> MembraneMetrics:
    """Means over the sections; NaN if undefined for any section."""
    means = np.mean([astuple(section) for section in sections], axis=0)
    return MembraneMetrics(*map(float, means))


def connected_cells(class_map: NDArray[np.uint8], membrane_id: int) -> IntArray:
    """(H, W) ids from 1 of connected components that are neither membrane nor void; 0 elsewhere."""
    from scipy.ndimage import label

    return label((class_map != membrane_id) & (class_map != IGNORE_INDEX))[0].astype(np.int64)


def thinned_cells(class_map: NDArray[np.uint8], membrane_id: int) -> IntArray:
    """(H, W) `connected_cells` with other pixels assigned to the nearest cell; 0 without cells."""
    from scipy.ndimage import distance_transform_edt

    cells = connected_cells(class_map, membrane_id)
    if not cells.any():
        return cells
    nearest = distance_transform_edt(cells == 0, return_distances=False, return_indices=True)
    return cells[tuple(nearest)]


def cell_overlap(target: IntArray, prediction: IntArray) -> IntArray:
    """Pixel counts (predicted cells, target cells) of two arrays of cell ids, each (N,)."""
    rows = np.unique(prediction, return_inverse=True)[1]
    columns = np.unique(target, return_inverse=True)[1]
    counts = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


def v_rand(counts: IntArray) -> float:
    """V-Rand of `cell_overlap`; NaN without pixels."""
    if not counts.sum():
        return float("nan")
    p = counts / counts.sum()
    return float(2 * (p**2).sum() / ((p.sum(1) ** 2).sum() + (p.sum(0) ** 2).sum()))


def v_info(counts: IntArray) -> float:
    """V-Info of `cell_overlap`; 1 if both have a single cell, NaN without pixels."""
    if not counts.sum():
        return float("nan")
    p = counts / counts.sum()
    of_prediction, of_target = _entropy(p.sum(1)), _entropy(p.sum(0))
    if of_prediction + of_target == 0:
        return 1.0
    information = of_prediction + of_target - _entropy(p)
    return float(2 * information / (of_prediction + of_target))


def warp(
    target: NDArray[np.bool_], prediction: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Deform the target towards the prediction without changing its topology.

    Differing pixels are flipped as long as they are simple points: flipping a simple point changes
    neither the number of cells (4-connected) nor of membranes (8-connected).

    Args:
        target: (H, W), True in cells, False in membranes.
        prediction: (H, W), encoded like the target.
        known: (H, W), False for void, which is treated as outside the image.

    Returns:
        (H, W), the deformed target.
    """
    warped = target.copy()
    different = np.argwhere((target != prediction) & known)
    queue = deque(map(tuple, different.tolist()))
    while queue:
        y, x = queue.popleft()
        if warped[y, x] == prediction[y, x] or not _is_simple(*_neighbours(warped, known, y, x)):
            continue
        warped[y, x] = prediction[y, x]
        for b, a in _RING:
            row, column = y + b, x + a
            inside = 0 <= row < target.shape[0] and 0 <= column < target.shape[1]
            if inside and known[row, column] and warped[row, column] != prediction[row, column]:
                queue.append((row, column))
    return warped


# The eight neighbours of a pixel in circular order; those with an even index share a side with it.
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _neighbours(
    cells: NDArray[np.bool_], known: NDArray[np.bool_], y: int, x: int
) -> tuple[int, int]:
    """Bit masks over _RING: the neighbours that are cells, and those that are membranes."""
    of_cells = of_membranes = 0
    for place, (b, a) in enumerate(_RING):
        row, column = y + b, x + a
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1] and known[row, column]:
            if cells[row, column]:
                of_cells |= 1 << place
            else:
                of_membranes |= 1 << place
    return of_cells, of_membranes


@cache
def _is_simple(cells: int, membranes: int) -> bool:
    """Whether a pixel with these neighbours adjoins exactly one cell and one membrane."""
    by_sides = [run for run in _runs(cells, False) if any(place % 2 == 0 for place in run)]
    return len(by_sides) == 1 and len(_runs(membranes, True)) == 1


def _runs(bits: int, corners: bool) -> list[set[int]]:
    """Connected components of the positions on _RING given by the bit mask.

    If `corners`, two positions on both sides of a corner, such as 0 and 2, are connected as well.
    """
    left = {place for place in range(8) if bits >> place & 1}
    runs = []
    while left:
        run, ends = set(), [left.pop()]
        while ends:
            place = ends.pop()
            run.add(place)
            steps = [1, 7, 2, 6] if corners and place % 2 == 0 else [1, 7]
            for beside in left & {(place + step) % 8 for step in steps}:
                left.remove(beside)
                ends.append(beside)
        runs.append(run)
    return runs


def _entropy(p: NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())
