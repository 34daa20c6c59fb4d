"""Object metrics: detection of objects, which are connected components of a class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.metrics import IGNORE_INDEX


@dataclass(frozen=True)
class ObjectCounts:
    """Counts of objects matched at an IoU above 0.5; they can be summed over images.

    Attributes:
        found: Objects of the target that the prediction matches (true positives).
        missed: Objects of the target without a match (false negatives).
        extra: Predicted objects without a match (false positives).
    """

    found: int = 0
    missed: int = 0
    extra: int = 0

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        return ObjectCounts(
            self.found + other.found, self.missed + other.missed, self.extra + other.extra
        )

    @property
    def precision(self) -> float:
        """Matched objects over predicted objects; NaN without predictions."""
        return _ratio(self.found, self.found + self.extra)

    @property
    def recall(self) -> float:
        """Matched objects over objects of the target; NaN if it has none."""
        return _ratio(self.found, self.found + self.missed)

    @property
    def average_precision(self) -> float:
        """AP at IoU 0.5 as the 2018 Data Science Bowl defines it, TP / (TP + FP + FN).

        A class map does not rank objects by confidence, so this is not the area under a
        precision-recall curve as in COCO.
        """
        return _ratio(self.found, self.found + self.missed + self.extra)

    def to_json(self) -> dict[str, Any]:
        """Counts and ratios, with NaN as None."""
        ratios = {
            "precision": self.precision,
            "recall": self.recall,
            "ap50": self.average_precision,
        }
        return {
            **{name: None if np.isnan(value) else value for name, value in ratios.items()},
            "found": self.found,
            "missed": self.missed,
            "extra": self.extra,
        }


def object_counts(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], class_id: int
) -> ObjectCounts:
    """Match the objects of a class in one image.

    Objects are 4-connected components, so that a single pixel of background separates them. Two
    objects match if their IoU is above 0.5, which makes matches unique. Void pixels of the target
    are ignored.

    Args:
        target: (H, W) class ids, 255 for void.
        prediction: (H, W) class ids of the same shape.
        class_id: The class whose objects are counted.
    """
    from scipy.ndimage import label

    known = target != IGNORE_INDEX
    true, true_count = label((target == class_id) & known)
    found, found_count = label((prediction == class_id) & known)
    overlap = np.zeros((true_count + 1, found_count + 1), np.int64)
    np.add.at(overlap, (true[known], found[known]), 1)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    matches = int((2 * overlap > union)[1:, 1:].sum())
    return ObjectCounts(matches, true_count - matches, found_count - matches)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
