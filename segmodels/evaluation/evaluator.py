"""Metrics of a network on a dataset: over all images, per class, per source and per image."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from segmodels.data.dataset import DataError, SegmentationData
from segmodels.evaluation import metrics
from segmodels.evaluation.em_metrics import (
    MembraneMetrics,
    best_of_thresholds,
    mean_membrane_metrics,
    membrane_metrics,
    metrics_by_threshold,
)
from segmodels.evaluation.object_metrics import ObjectCounts, object_counts
from segmodels.inference.segmenter import Segmenter, resize_probabilities
from segmodels.utils.distributed import gathered, is_main_process, shared
from segmodels.utils.formatting import percent

CLASS_COLUMNS = {
    "iou": "IoU",
    "dice": "Dice (F1)",
    "precision": "precision",
    "accuracy": "accuracy (recall)",
    "boundary_f1": "boundary F1",
}
SUMMARY_NAMES = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice (F1)",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_f1": "boundary F1",
}
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class ImageResult:
    """Counts and metrics of one image.

    Attributes:
        index: Position in the split.
        name: File name.
        confusion_matrix: (num_classes, num_classes) pixel counts, [target, prediction].
        boundary_f1: (num_classes,), NaN for classes for which it is undefined; None if not
            measured.
        void_outlines: (num_classes, 2) counts of `metrics.void_outline_counts`; None if not
            measured.
        objects: Object counts of the requested classes.
        membranes: Metrics of membrane segmentation, if requested and the label has membranes.
        membranes_by_threshold: The same at each of `em_metrics.THRESHOLDS`.
    """

    index: int
    name: str
    confusion_matrix: NDArray[np.int64]
    boundary_f1: NDArray[np.float64] | None = None
    void_outlines: NDArray[np.int64] | None = None
    objects: dict[str, ObjectCounts] = field(default_factory=dict)
    membranes: MembraneMetrics | None = None
    membranes_by_threshold: list[MembraneMetrics] | None = None

    @property
    def mean_iou(self) -> float:
        """Mean IoU of this image; NaN if all pixels are void."""
        return metrics.mean_iou(self.confusion_matrix)

    @property
    def source(self) -> str:
        """File name up to the first underscore: "nuclei" for "nuclei_07.png"; "" without one."""
        return self.name.partition("_")[0] if "_" in self.name else ""


@dataclass(frozen=True)
class ImageError:
    """An image that could not be evaluated, with the reason."""

    index: int
    name: str
    error: str


@dataclass(frozen=True)
class Evaluation:
    """Metrics over the images of a split, as fractions in [0, 1]; NaN for absent classes."""

    class_names: list[str]
    images: list[ImageResult]
    errors: list[ImageError] = field(default_factory=list)

    @cached_property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """[target, prediction] pixel counts, one matrix over all images."""
        count = len(self.class_names)
        empty = np.zeros((count, count), np.int64)
        return sum((image.confusion_matrix for image in self.images), empty)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes in the ground truth or the prediction."""
        return metrics.mean_iou(self.confusion_matrix)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(num_classes,) whether the class occurs in the ground truth."""
        return metrics.present_classes(self.confusion_matrix)

    @property
    def absent_classes(self) -> list[str]:
        """Classes that do not occur in the ground truth."""
        return [n for n, here in zip(self.class_names, self.present, strict=True) if not here]

    @cached_property
    def void_outline_share(self) -> NDArray[np.float64]:
        """(num_classes,) share in [0, 1] of each class's outline that is next to void.

        NaN for classes without an outline, or if boundaries were not measured.
        """
        counts = [i.void_outlines for i in self.images if i.void_outlines is not None]
        if not counts:
            return np.full(len(self.class_names), np.nan)
        return metrics.void_outline_share(np.sum(counts, axis=0))

    @property
    def boundaries_not_judged(self) -> NDArray[np.bool_]:
        """(num_classes,) whether nearly all of a class's outline is next to void.

        Boundary F1 is not meaningful for such classes.
        """
        return self.void_outline_share >= metrics.MAX_VOID_OUTLINE

    @cached_property
    def boundary_f1(self) -> NDArray[np.float64]:
        """(num_classes,) mean over the images in which the class occurs.

        NaN for classes that are not judged, or if boundaries were not measured.
        """
        scores = self._boundary_scores()
        if not scores:
            return np.full(len(self.class_names), np.nan)
        return metrics.mean_over_images(scores)

    @property
    def mean_boundary_f1(self) -> float:
        """As in SegNet: mean over the classes of each image, then over the images."""
        return self._mean_boundary_f1(np.ones_like(self.present))

    def _mean_boundary_f1(self, classes: NDArray[np.bool_]) -> float:
        means = [metrics.nan_mean(score[classes]) for score in self._boundary_scores()]
        return metrics.nan_mean(np.array(means, np.float64))

    def _boundary_scores(self) -> list[NDArray[np.float64]]:
        return [
            np.where(self.boundaries_not_judged, np.nan, image.boundary_f1)
            for image in self.images
            if image.boundary_f1 is not None
        ]

    @property
    def objects(self) -> dict[str, ObjectCounts]:
        """Counts over all images for each class whose objects were requested."""
        names = dict.fromkeys(name for image in self.images for name in image.objects)
        return {
            name: sum((image.objects[name] for image in self.images), ObjectCounts())
            for name in names
        }

    @property
    def membranes(self) -> MembraneMetrics | None:
        """Means over the images whose labels have membranes, if requested."""
        found = [image.membranes for image in self.images if image.membranes is not None]
        return mean_membrane_metrics(found) if found else None

    def best_of_thresholds(self) -> dict[str, dict[str, float | None]]:
        """As `em_metrics.best_of_thresholds`, over the images whose labels have membranes."""
        by_threshold = [image.membranes_by_threshold for image in self.images]
        return best_of_thresholds([found for found in by_threshold if found is not None])

    def summary(self) -> dict[str, float]:
        """Overall metrics, by the keys of SUMMARY_NAMES."""
        matrix = self.confusion_matrix
        return {
            "mean_iou": self.mean_iou,
            "mean_dice": metrics.nan_mean(metrics.per_class_dice(matrix)),
            "pixel_accuracy": metrics.pixel_accuracy(matrix),
            "mean_accuracy": metrics.mean_accuracy(matrix),
            "frequency_weighted_iou": metrics.frequency_weighted_iou(matrix),
            "boundary_f1": self.mean_boundary_f1,
        }

    def summary_of_present(self) -> dict[str, float]:
        """Means over the classes in the ground truth.

        The IoU of each class includes all pixels, even those predicted as an absent class.
        """
        matrix, present = self.confusion_matrix, self.present
        return {
            "mean_iou": metrics.nan_mean(metrics.per_class_iou(matrix)[present]),
            "mean_dice": metrics.nan_mean(metrics.per_class_dice(matrix)[present]),
            "boundary_f1": self._mean_boundary_f1(present),
        }

    def by_source(self) -> dict[str, "Evaluation"]:
        """An evaluation per source, in alphabetical order; see `ImageResult.source`."""
        return {
            source: Evaluation(self.class_names, [i for i in self.images if i.source == source])
            for source in sorted({image.source for image in self.images})
        }

    def class_rows(self) -> dict[str, dict[str, float | None]]:
        """{class name: metrics}, including those in CLASS_COLUMNS, with NaN as None."""
        matrix = self.confusion_matrix
        accuracy = metrics.per_class_accuracy(matrix)
        columns = {
            "iou": metrics.per_class_iou(matrix),
            "accuracy": accuracy,
            "boundary_f1": self.boundary_f1,
            "dice": metrics.per_class_dice(matrix),
            "precision": metrics.per_class_precision(matrix),
            "recall": accuracy,
            "void_outline": self.void_outline_share,
        }
        return {
            name: {key: _number(values[i]) for key, values in columns.items()}
            for i, name in enumerate(self.class_names)
        }

    def to_json(self, *, by_source: bool = False) -> dict[str, Any]:
        """All results, with NaN as None.

        Args:
            by_source: Whether to add the metrics of each source; see `by_source`.
        """
        present = {name: _number(value) for name, value in self.summary_of_present().items()}
        report: dict[str, Any] = {
            "pictures": len(self.images),  # the key in the file format of version 0.1
            **{name: _number(value) for name, value in self.summary().items()},
            "absent_classes": self.absent_classes,
            "present_classes": {"count": int(self.present.sum()), **present},
            "classes": self.class_rows(),
        }
        if self.objects:
            report["objects"] = {name: counts.to_json() for name, counts in self.objects.items()}
        if self.membranes is not None:
            best = {"best_of_thresholds": self.best_of_thresholds()}
            report["membranes"] = self.membranes.to_json() | best
        if by_source:
            report["sources"] = {
                source: evaluation.to_json() for source, evaluation in self.by_source().items()
            }
        if self.errors:
            report["errors"] = [{"image": e.name, "error": e.error} for e in self.errors]
        report["confusion_matrix"] = self.confusion_matrix.tolist()
        return report

    def table(self) -> str:
        """Format the metrics per class and overall as a table, in percent."""
        lines = [*self._class_lines(), "", *self._summary_lines()]
        if self.absent_classes:
            lines += ["", *self._present_lines()]
        for name, counts in self.objects.items():
            lines += ["", *_object_lines(name, counts)]
        if self.membranes is not None:
            lines += ["", "membranes (means over the images that have some)"]
            for key, value in self.membranes.to_json().items():
                lines.append(_line(key.replace("_", " "), value))
            lines += ["", "the same at the best of nine thresholds of the membrane probability"]
            for key, best in self.best_of_thresholds().items():
                line = _line(key.replace("_", " "), best["value"])
                lines.append(f"{line} at {best['threshold']}")
        return "\n".join(lines)

    def _class_lines(self) -> list[str]:
        width = max(14, *map(len, self.class_names)) + 2
        head = "".join(f"{title:>{len(title) + 3}}" for title in CLASS_COLUMNS.values())
        lines = [f"{'class':<{width}}{head}"]
        not_judged = self.boundaries_not_judged
        for i, (name, row) in enumerate(self.class_rows().items()):
            line = f"{name:<{width}}"
            for key, title in CLASS_COLUMNS.items():
                cell = percent(row[key])
                if key == "boundary_f1" and not_judged[i]:
                    cell = NOT_JUDGED
                line += f"{cell:>{len(title) + 3}}"
            lines.append(line)
        return lines

    def _summary_lines(self) -> list[str]:
        lines = [_line(SUMMARY_NAMES[key], value) for key, value in self.summary().items()]
        if self.boundaries_not_judged.any() and math.isnan(self.mean_boundary_f1):
            lines[-1] = f"{SUMMARY_NAMES['boundary_f1']:<25}{NOT_JUDGED:>12}: outlines are void"
        return lines

    def _present_lines(self) -> list[str]:
        head = (
            f"the ground truth does not contain {', '.join(self.absent_classes)}; over the "
            f"{self.present.sum()} classes present:"
        )
        values = self.summary_of_present().items()
        return [head, *(_line(SUMMARY_NAMES[key], value) for key, value in values)]

    def source_table(self) -> str:
        """Format the metrics of each source as a table, in percent.

        Its columns are the number of images, means over the classes present, pixel accuracy and the
        IoU of each class.
        """
        sources = self.by_source()
        width = max(14, *map(len, sources)) + 2
        titles = ["images", "mean IoU", "mean Dice", "pixel acc.", *self.class_names]
        lines = [f"{'source':<{width}}" + "".join(f"{t:>{max(len(t), 6) + 2}}" for t in titles)]
        for source, evaluation in sources.items():
            present = evaluation.summary_of_present()
            iou = np.where(
                evaluation.present, metrics.per_class_iou(evaluation.confusion_matrix), np.nan
            )
            cells = [
                str(len(evaluation.images)),
                percent(present["mean_iou"]),
                percent(present["mean_dice"]),
                percent(metrics.pixel_accuracy(evaluation.confusion_matrix)),
                *map(percent, iou),
            ]
            padded = zip(cells, titles, strict=True)
            lines.append(
                f"{source or '(no prefix)':<{width}}"
                + "".join(f"{cell:>{max(len(title), 6) + 2}}" for cell, title in padded)
            )
        return "\n".join(lines)

    def csv(self) -> str:
        """Format the metrics of each image as CSV: fractions in [0, 1], empty if undefined."""
        object_names, with_membranes = list(self.objects), self.membranes is not None
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        head = ["image", "source", "error", "mean_iou", "mean_dice", "pixel_accuracy"]
        head += ["boundary_f1", *(f"iou_{name}" for name in self.class_names)]
        for name in object_names:
            head += [f"{name}_{count}" for count in ("found", "missed", "extra")]
        if with_membranes:
            head += [column.name for column in fields(MembraneMetrics)]
        writer.writerow(head)
        rows = [_csv_row(image, self.boundaries_not_judged) for image in self.images]
        rows += [[failed.name, "", failed.error] for failed in self.errors]
        writer.writerows(row + [""] * (len(head) - len(row)) for row in rows)
        return file.getvalue()


def evaluate(
    segmenter: Segmenter,
    data: SegmentationData,
    *,
    boundaries: bool = True,
    objects: Sequence[str] = (),
    membrane: str | None = None,
    skip_errors: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Segment every image of a split and compare it with the ground truth.

    With several processes, the images are divided among them; each returns the overall metrics.

    Args:
        segmenter: A network with the classes of the dataset, in the same order.
        data: A split of a dataset.
        boundaries: Measure boundary F1 as well.
        objects: Classes whose objects (connected components) are counted.
        membrane: Class of the membranes, to measure V-Rand, V-Info, pixel and warping error of the
            images whose labels have membranes.
        skip_errors: Record invalid images and labels in `Evaluation.errors` and continue.
        quiet: Do not show a progress bar.

    Returns:
        The metrics, with the confusion matrix of every image.

    Raises:
        DataError: If the classes of the dataset differ, a requested class does not exist, or an
            image or label is invalid (with skip_errors: if all are).
    """
    check_classes(segmenter.model.class_names, data, [*objects, *([membrane] if membrane else [])])
    data = data.with_channels(segmenter.model.in_channels)
    results: list[ImageResult] = []
    errors: list[ImageError] = []
    for index in tqdm(
        shared(range(len(data))), disable=quiet or not is_main_process(), unit="image"
    ):
        try:
            results.append(_measure(segmenter, data, index, boundaries, objects, membrane))
        except ValueError as error:  # DataError and PictureError, and ids out of range
            if not skip_errors:
                raise
            name = data.samples[index].name
            errors.append(ImageError(index, name, str(error)))
    results = sorted(gathered(results), key=lambda result: result.index)
    errors = sorted(gathered(errors), key=lambda failed: failed.index)
    if errors and not results:
        raise DataError(f"none of the {len(errors)} images can be evaluated: {errors[0].error}")
    return Evaluation(data.class_names, results, errors)


def check_classes(
    class_names: Sequence[str], data: SegmentationData, requested: Sequence[str] = ()
) -> None:
    """Raise DataError if the classes of the dataset differ or a requested class does not exist.

    Args:
        class_names: Classes of the network.
        data: A split of the dataset.
        requested: Classes that options refer to.
    """
    if data.class_names != list(class_names):
        raise DataError(
            f"the dataset has the classes {', '.join(data.class_names)}; expected those of the "
            f"network, in the same order: {', '.join(class_names)}"
        )
    for name in requested:
        if name not in class_names:
            raise DataError(f"there is no class {name!r}; choose one of {', '.join(class_names)}")


def _measure(
    segmenter: Segmenter,
    data: SegmentationData,
    index: int,
    boundaries: bool,
    objects: Sequence[str],
    membrane: str | None,
) -> ImageResult:
    names = data.class_names
    image, target = data.pair(index)
    class_map = segmenter(image).class_map
    membranes = by_threshold = None
    if membrane is not None and (target == names.index(membrane)).any():
        membrane_id = names.index(membrane)
        membranes = membrane_metrics(target, class_map, membrane_id)
        probability = torch.from_numpy(segmenter.probabilities(image)[[membrane_id]])
        probability = resize_probabilities(probability, class_map.shape)[0]
        by_threshold = metrics_by_threshold(target, probability.numpy(), membrane_id)
    return ImageResult(
        index=index,
        name=data.samples[index].name,
        confusion_matrix=metrics.confusion_matrix(target, class_map, len(names)),
        boundary_f1=metrics.boundary_f1(target, class_map, len(names)) if boundaries else None,
        void_outlines=metrics.void_outline_counts(target, len(names)) if boundaries else None,
        objects={name: object_counts(target, class_map, names.index(name)) for name in objects},
        membranes=membranes,
        membranes_by_threshold=by_threshold,
    )


def _csv_row(image: ImageResult, not_judged: NDArray[np.bool_]) -> list[Any]:
    matrix = image.confusion_matrix
    boundary = math.nan
    if image.boundary_f1 is not None:
        boundary = metrics.nan_mean(image.boundary_f1[~not_judged])
    values = [
        image.mean_iou,
        metrics.nan_mean(metrics.per_class_dice(matrix)),
        metrics.pixel_accuracy(matrix),
        boundary,
        *metrics.per_class_iou(matrix),
    ]
    row: list[Any] = [image.name, image.source, "", *map(_cell, values)]
    for counts in image.objects.values():
        row += [counts.found, counts.missed, counts.extra]
    if image.membranes is not None:
        row += map(_cell, astuple(image.membranes))
    return row


def _object_lines(name: str, counts: ObjectCounts) -> list[str]:
    return [
        f"objects of {name}, matched at IoU 0.5: {counts.found} found, {counts.missed} missed, "
        f"{counts.extra} extra",
        _line("precision", counts.precision),
        _line("recall", counts.recall),
        _line("AP at IoU 0.5", counts.average_precision),
    ]


def _line(name: str, value: float | None) -> str:
    return f"{name:<25}{percent(value):>9}"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
