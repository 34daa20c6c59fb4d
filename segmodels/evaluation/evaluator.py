"""Figures of a network on a data set."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from segmodels.data.dataset import DataError, SegmentationData
from segmodels.evaluation import metrics
from segmodels.inference.segmenter import Segmenter
from segmodels.utils.distributed import gathered, is_main_process, shared, summed
from segmodels.utils.formatting import percent


@dataclass(frozen=True)
class Evaluation:
    """Figures over all pictures of a split, as fractions in [0, 1]; NaN for absent classes.

    confusion_matrix: [target, prediction] pixel counts, one matrix over all pictures.
    picture_ious: (pictures,) mean IoU of each picture by itself, NaN where all is void.
    boundary_f1: (num_classes,) mean over the pictures that have the class.
    """

    class_names: list[str]
    confusion_matrix: NDArray[np.int64]
    picture_ious: NDArray[np.float64]
    boundary_f1: NDArray[np.float64]
    mean_boundary_f1: float

    @property
    def pictures(self) -> int:
        return len(self.picture_ious)

    @property
    def mean_iou(self) -> float:
        return metrics.mean_iou(self.confusion_matrix)

    def summary(self) -> dict[str, float]:
        """The figures over all classes."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": metrics.pixel_accuracy(self.confusion_matrix),
            "mean_accuracy": metrics.mean_accuracy(self.confusion_matrix),
            "frequency_weighted_iou": metrics.frequency_weighted_iou(self.confusion_matrix),
            "boundary_f1": self.mean_boundary_f1,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, with NaN as None."""
        iou = metrics.per_class_iou(self.confusion_matrix)
        accuracy = metrics.per_class_accuracy(self.confusion_matrix)
        return {
            "pictures": self.pictures,
            **{name: _number(value) for name, value in self.summary().items()},
            "classes": {
                name: {
                    "iou": _number(iou[i]),
                    "accuracy": _number(accuracy[i]),
                    "boundary_f1": _number(self.boundary_f1[i]),
                }
                for i, name in enumerate(self.class_names)
            },
            "confusion_matrix": self.confusion_matrix.tolist(),
        }

    def table(self) -> str:
        """Per class and over all, in percent."""
        width = max(14, *map(len, self.class_names)) + 2
        lines = [f"{'class':<{width}}{'IoU':>9}{'accuracy':>11}{'boundary F1':>14}"]
        for name, row in self.to_json()["classes"].items():
            cells = [percent(row[key]) for key in ("iou", "accuracy", "boundary_f1")]
            lines.append(f"{name:<{width}}{cells[0]:>9}{cells[1]:>11}{cells[2]:>14}")
        lines.append("")
        for key, value in self.summary().items():
            lines.append(f"{key.replace('_', ' '):<25}{percent(value):>9}")
        return "\n".join(lines)


def evaluate(
    segmenter: Segmenter, data: SegmentationData, *, boundaries: bool = True, quiet: bool = False
) -> Evaluation:
    """Segment every picture and compare; of several processes each has its share of them, and the
    figures of all. DataError if the data set has other classes.

    boundaries: measure boundary F1 too. quiet: no progress bar.
    """
    class_names = segmenter.model.class_names
    if data.class_names != class_names:
        raise DataError(
            f"the data set has the classes {', '.join(data.class_names)}; the network was trained "
            f"for {', '.join(class_names)}"
        )
    num_classes = len(class_names)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    found = []  # of each picture its index, mean IoU and boundary F1
    share = shared(range(len(data)))
    for index in tqdm(share, disable=quiet or not is_main_process(), unit="picture"):
        picture, target = data.pair(index)
        class_map = segmenter(picture).class_map
        own = metrics.confusion_matrix(target, class_map, num_classes)
        matrix += own
        boundary = metrics.boundary_f1(target, class_map, num_classes) if boundaries else None
        found.append((index, metrics.mean_iou(own), boundary))
    found = sorted(gathered(found), key=lambda item: item[0])
    scores = [boundary for *_, boundary in found if boundary is not None]
    if boundaries:
        per_class = metrics.mean_over_pictures(scores)
        # As SegNet: a picture's mean over its classes, then the mean over the pictures.
        overall = metrics.nan_mean(np.array([metrics.nan_mean(score) for score in scores]))
    else:
        per_class, overall = np.full(num_classes, np.nan), math.nan
    return Evaluation(
        class_names=class_names,
        confusion_matrix=_summed(matrix, segmenter.device),
        picture_ious=np.array([iou for _, iou, _ in found]),
        boundary_f1=per_class,
        mean_boundary_f1=overall,
    )


def _summed(matrix: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    return summed(torch.from_numpy(matrix).to(device)).cpu().numpy()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
