"""Plots of training curves and confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segmodels.utils.files import atomic_write

MAX_ANNOTATED = 40  # with more classes, the cells of the confusion matrix have no numbers


def draw_curves(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Plot losses, validation metrics and learning rate over the epochs.

    Args:
        path: Path of the PNG.
        records: Lines of `metrics.jsonl`.
    """
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    losses, scores, rates = figure.subplots(1, 3)
    _plot(losses, records, {"loss": "train", "val_loss": "val"}, "loss")
    metrics = {"val_mean_iou": "mean IoU", "val_pixel_accuracy": "pixel accuracy"}
    _plot(scores, records, metrics, "val")
    scores.set_ylim(0, 1)
    _plot(rates, records, {"learning_rate": "decoder"}, "learning rate")
    _save(figure, path)


def draw_confusion(
    path: Path, matrix: NDArray[np.int64], class_names: Sequence[str], title: str
) -> None:
    """Plot a confusion matrix, with each row in percent of the pixels of its class.

    Args:
        path: Path of the PNG.
        matrix: (num_classes, num_classes) pixel counts, [target, prediction].
        class_names: Names of the classes in the order of the ids.
        title: Title of the plot.
    """
    count = len(class_names)
    shares = 100 * matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    side = min(24.0, 3.5 + 0.45 * count)
    figure = Figure(figsize=(side, side), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    names = [name if len(name) <= 24 else name[:23] + "..." for name in class_names]
    axes.set_xticks(range(count), names, rotation=90, parse_math=False)
    axes.set_yticks(range(count), names, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("ground truth")
    axes.set_title(title, parse_math=False)
    if count <= MAX_ANNOTATED:
        for row, column in np.ndindex(count, count):
            if shares[row, column] >= 0.5:
                color = "white" if shares[row, column] > 50 else "black"
                text = f"{shares[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    _save(figure, path)


def _plot(
    axes: Axes, records: Sequence[Mapping[str, Any]], series: Mapping[str, str], title: str
) -> None:
    for key, name in series.items():
        points = [(record["epoch"], record[key]) for record in records if key in record]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()


def _save(figure: Figure, path: Path) -> None:
    # Characters that are missing in the font are drawn as boxes, without a warning.
    import warnings

    with atomic_write(path) as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(scratch, metadata={"Software": None})
