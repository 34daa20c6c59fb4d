"""Metrics of membrane segmentation in electron microscopy, of the cells that membranes separate.

Source: Arganda-Carreras et al., Frontiers in Neuroanatomy 2015, on the ISBI 2012 challenge. They
are restricted to the foreground: pixels that the target calls membrane, or void, are not
counted. With p_ij the probability that a counted pixel lies in cell i of the prediction and cell j
of the target, s_i and t_j its sums over j and i:

    V-Rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2)
    V-Info = I(S; T) / (H(S) / 2 + H(T) / 2)

Both are 1 for a perfect segmentation, and F-scores of a split and a merge score. The Rand error of
2012, as in the U-Net paper, is 1 - V-Rand; the challenge took the best of all thresholds and hidden
sections, this module takes the class map as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.metrics import IGNORE_INDEX

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class MembraneMetrics:
    """Metrics of one section, or their means over several, in [0, 1].

    Attributes:
        v_rand: Foreground-restricted Rand score; 1 is perfect.
        v_info: Foreground-restricted information-theoretic score; 1 is perfect.
        pixel_error: Share of the known pixels on the wrong side of membrane or not; 0 is perfect.
    """

    v_rand: float
    v_info: float
    pixel_error: float

    def to_json(self) -> dict[str, Any]:
        """The metrics and the Rand error, None for NaN."""
        values = {
            "v_rand": self.v_rand,
            "rand_error": 1 - self.v_rand,
            "v_info": self.v_info,
            "pixel_error": self.pixel_error,
        }
        return {name: None if np.isnan(value) else value for name, value in values.items()}


def membrane_metrics(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], membrane_id: int
) -> MembraneMetrics:
    """Score one section.

    The target's cells are the connected components, by sides, of its pixels other than membrane.
    The predicted membranes are thinned away first: each of their pixels belongs to the nearest
    predicted cell, so that a membrane's width does not count.

    Args:
        target: (H, W) class ids, 255 for void.
        prediction: (H, W) class ids of the same shape.
        membrane_id: The class of the membranes.
    """
    counted = (target != membrane_id) & (target != IGNORE_INDEX)
    cells = connected_cells(target, membrane_id)[counted]
    found = thinned_cells(prediction, membrane_id)[counted]
    known = target != IGNORE_INDEX
    wrong = (target == membrane_id) != (prediction == membrane_id)
    pixel_error = float(wrong[known].mean()) if known.any() else float("nan")
    counts = cell_overlap(cells, found)
    return MembraneMetrics(v_rand(counts), v_info(counts), pixel_error)


def mean_membrane_metrics(sections: list[MembraneMetrics]) -> MembraneMetrics:
    """Means over the sections; NaN where a section has none."""
    rows = [(one.v_rand, one.v_info, one.pixel_error) for one in sections]
    return MembraneMetrics(*(float(value) for value in np.mean(rows, axis=0)))


def connected_cells(class_map: NDArray[np.uint8], membrane_id: int) -> IntArray:
    """(H, W) ids, from 1 on, of connected components that are neither membrane nor void; else 0."""
    from scipy.ndimage import label

    return label((class_map != membrane_id) & (class_map != IGNORE_INDEX))[0].astype(np.int64)


def thinned_cells(class_map: NDArray[np.uint8], membrane_id: int) -> IntArray:
    """(H, W) `connected_cells`, other pixels given to the nearest cell; all 0 without cells."""
    from scipy.ndimage import distance_transform_edt

    cells = connected_cells(class_map, membrane_id)
    if not cells.any():
        return cells
    nearest = distance_transform_edt(cells == 0, return_distances=False, return_indices=True)
    return cells[tuple(nearest)]


def cell_overlap(target: IntArray, prediction: IntArray) -> IntArray:
    """(predicted cells, target cells) pixel counts of two arrays of cell ids, each of (N,)."""
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


def _entropy(p: NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())
