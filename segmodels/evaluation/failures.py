"""Where a network fails, in words, from its confusion matrix."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.metrics import per_class_accuracy, per_class_iou
from segmodels.utils.formatting import percent

NOTABLE = 0.05  # of a class's pixels; a smaller confusion is not worth a word


def weakest_classes(
    matrix: NDArray[np.int64], class_names: Sequence[str], count: int = 3
) -> list[str]:
    """A sentence or two for each of the `count` classes of the lowest IoU, lowest first: how much
    of it is found, what the rest is taken for, and what is taken for it.

    matrix: [target, prediction] pixel counts.
    """
    iou, found = per_class_iou(matrix), per_class_accuracy(matrix)
    order = [int(i) for i in np.argsort(iou, kind="stable") if matrix[i].any()]
    return [_sentences(matrix, class_id, class_names, iou, found) for class_id in order[:count]]


def _sentences(
    matrix: NDArray[np.int64],
    class_id: int,
    class_names: Sequence[str],
    iou: NDArray[np.float64],
    found: NDArray[np.float64],
) -> str:
    name = class_names[class_id]
    missed = _others(matrix[class_id], class_id, "% are taken for", "% for", class_names)
    wrong = _others(matrix[:, class_id], class_id, "% is", "%", class_names)
    text = f"**{name}** (IoU {percent(iou[class_id])} %): "
    text += f"{100 * found[class_id]:.0f} % of its pixels are found" + (
        f", {missed}." if missed else "."
    )
    return text + (f" Of what is called {name}, {wrong}." if wrong else "")


def _others(
    counts: NDArray[np.int64], class_id: int, first: str, next_: str, class_names: Sequence[str]
) -> str:
    """The two largest of the other classes, if they are notable: "27 % are taken for building and
    10 % for tree" where the words are `first` and `next_`."""
    shares = counts / max(1, counts.sum())
    shares[class_id] = 0
    largest = [i for i in np.argsort(-shares, kind="stable")[:2] if shares[i] >= NOTABLE]
    words = zip(largest, (first, next_), strict=False)
    return " and ".join(f"{100 * shares[i]:.0f} {word} {class_names[i]}" for i, word in words)
