"""Validation images taken from the training images, where a dataset has no split of its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmodels.data.labels import DataError
from segmodels.data.layouts import Sample


@dataclass(frozen=True)
class HoldOut:
    """Which of the training images are held out for validation.

    Drawn from the names and the seed alone. Images whose file names share the part before
    the first underscore (plate3_a.tif, plate3_b.tif) stay together, as long as there are at least
    two such groups and as many as folds; of a single stack, neighbouring pages stay together.

    Attributes:
        val_fraction: Share of the images to hold out; 0: by folds or names.
        folds: Of a cross-validation.
        fold: The one that is held out, 0 to folds - 1.
        seed: Of the draw.
        names: The `Sample.key` of each image that is held out, as a training recorded them, in
            place of a draw.

    Raises:
        DataError: For values out of range.
    """

    val_fraction: float = 0.0
    folds: int | None = None
    fold: int | None = None
    seed: int = 0
    names: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if (self.folds is None) != (self.fold is None):
            raise DataError(
                f"folds and fold go together, got folds {self.folds} and fold {self.fold}"
            )
        chosen = [bool(self.val_fraction), self.folds is not None, self.names is not None]
        if sum(chosen) != 1:
            raise DataError(
                f"give either val_fraction or folds with fold, got val_fraction "
                f"{self.val_fraction:g}, folds {self.folds}"
            )
        if self.folds is None and not 0 <= self.val_fraction < 1:
            raise DataError(
                f"val_fraction must be more than 0 and less than 1, got {self.val_fraction:g}"
            )
        if self.folds is not None and not (self.folds >= 2 and 0 <= (self.fold or 0) < self.folds):
            raise DataError(
                f"folds must be at least 2 and fold from 0 to folds - 1, got folds {self.folds} "
                f"and fold {self.fold}"
            )

    def held_out(self, samples: Sequence[Sample]) -> list[bool]:
        """Whether each of the samples is held out: at least one, and not all.

        Raises:
            DataError: If there are too few, or recorded ones are missing.
        """
        if self.names is not None:
            return self._recorded(samples, self.names)
        least = self.folds or 2
        if len(samples) < least:
            raise DataError(
                f"{len(samples)} images cannot be divided into {least} parts: choose fewer --folds"
            )
        parts = self.folds or max(2, round(1 / self.val_fraction))
        groups = _groups(samples, parts, least)
        groups.sort(key=lambda group: self._draw(samples[group[0]]))
        chosen = set(self._fold(groups) if self.folds else self._fraction(groups, len(samples)))
        return [index in chosen for index in range(len(samples))]

    def describe(self, samples: Sequence[Sample]) -> str:
        """One line on what is held out of the samples."""
        pairs = list(zip(samples, self.held_out(samples), strict=True))
        held = [_prefix(sample) for sample, is_held in pairs if is_held]
        kept = {_prefix(sample) for sample, is_held in pairs if not is_held}
        line = f"validation on {len(held)} of the {len(samples)} training images, held out"
        if len(set(held)) < len(held) and not kept & set(held):
            line += f" by the first part of their file names: {', '.join(sorted(set(held)))}"
        return line

    def _draw(self, sample: Sample) -> bytes:
        """A number that depends on the seed and the name alone, also in years to come."""
        return hashlib.sha256(f"{self.seed} {sample.key}".encode()).digest()

    def _recorded(self, samples: Sequence[Sample], names: frozenset[str]) -> list[bool]:
        missing = sorted(names - {sample.key for sample in samples})
        if missing:
            raise DataError(
                f"{len(missing)} images that the training held out are not in the dataset, "
                f"{missing[0]} for example: give the dataset that the network was trained on"
            )
        return [sample.key in names for sample in samples]

    def _fraction(self, groups: list[list[int]], count: int) -> list[int]:
        """Groups in their order, each that brings the number of images nearer to the fraction."""
        target = min(count - 1, max(1, round(self.val_fraction * count)))
        held: list[int] = []
        for group in groups:
            if abs(len(held) + len(group) - target) < abs(len(held) - target):
                held += group
        return held or min(groups, key=len)

    def _fold(self, groups: list[list[int]]) -> list[int]:
        """The largest groups first, each to the fold that has the fewest images."""
        assert self.folds is not None
        assert self.fold is not None
        parts: list[list[int]] = [[] for _ in range(self.folds)]
        for group in sorted(groups, key=len, reverse=True):
            min(parts, key=len).extend(group)
        return parts[self.fold]


def _groups(samples: Sequence[Sample], parts: int, least: int) -> list[list[int]]:
    """Indices of the samples that stay together. parts: of a single stack."""
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda i: (samples[i].picture, samples[i].page)):
        groups.setdefault(_prefix(samples[index]), []).append(index)
    if len(groups) >= least:
        return list(groups.values())
    if len({sample.picture for sample in samples}) == 1:
        blocks = np.array_split(np.arange(len(samples)), min(parts, len(samples)))
        return [block.tolist() for block in blocks]
    return [[index] for index in range(len(samples))]


def _prefix(sample: Sample) -> str:
    return sample.picture.stem.partition("_")[0]
