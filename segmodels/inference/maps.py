"""Maps of a picture that compare class maps: where they depart from each other, where from the
truth; and the class ids that two sets of classes have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint8]

AGREE = 0  # of `disagreement`; 1 ... N: only that map departs; N + 1: otherwise
RIGHT, WRONG, VOID = 0, 1, 2  # of `errors`


def common_ids(
    class_maps: Sequence[Ids], class_names: Sequence[Sequence[str]]
) -> tuple[list[str], list[Ids]]:
    """The maps with ids into one list of names, so that networks of different classes can be
    compared: the list, each name once in the order of first appearance, and the maps (H, W).
    ValueError for more than 255 names."""
    names = list(dict.fromkeys(name for group in class_names for name in group))
    if len(names) > 255:
        raise ValueError(f"at most 255 different classes can be compared, got {len(names)}")
    tables = [np.array([names.index(name) for name in group], np.uint8) for group in class_names]
    return names, [table[ids] for table, ids in zip(tables, class_maps, strict=True)]


def agreement(class_maps: Sequence[Ids]) -> float:
    """Fraction of the pixels to which all the maps, (H, W) each, give the same class."""
    return float((disagreement(class_maps) == AGREE).mean())


def disagreement(class_maps: Sequence[Ids]) -> Ids:
    """(H, W) uint8 for N maps: 0 where all give the same class; k from 1 to N where the k-th map
    alone departs from the others, which agree; N + 1 where no one map can be named."""
    count = len(class_maps)
    result = np.full(class_maps[0].shape, count + 1, np.uint8)
    if count > 2:
        for departing in range(count):
            others = [ids for number, ids in enumerate(class_maps) if number != departing]
            result[_all_equal(others)] = departing + 1
    result[_all_equal(class_maps)] = AGREE
    return result


def _all_equal(class_maps: Sequence[Ids]) -> NDArray[np.bool_]:
    same = np.ones(class_maps[0].shape, bool)
    for class_map in class_maps[1:]:
        same &= class_map == class_maps[0]
    return same


def errors(target: Ids, class_map: Ids, *, ignore_index: int = 255) -> Ids:
    """(H, W) uint8: RIGHT (0), WRONG (1), or VOID (2) where the target has `ignore_index`."""
    result = np.where(class_map == target, RIGHT, WRONG).astype(np.uint8)
    result[target == ignore_index] = VOID
    return result


def quantised(values: NDArray[Any], highest: float = 1.0) -> Ids:
    """Numbers from 0 to `highest` as 0 to 255, rounded; those beyond are clipped."""
    return np.rint(255 / highest * np.clip(values, 0, highest)).astype(np.uint8)
