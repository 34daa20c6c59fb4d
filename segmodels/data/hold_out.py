"""Hold-out validation and cross-validation for datasets without a validation split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmodels.data.labels import DataError
from segmodels.data.layouts import Sample
from segmodels.utils.formatting import count_of


@dataclass(frozen=True)
class HoldOut:
    """Selects the training images that are held out for validation.

    The selection depends only on file names and the seed. Images whose names have the same part
    before the first underscore (plate3_a.tif, plate3_b.tif) stay together, if there are at least
    two such groups and at least as many as folds; in a single stack, neighbouring pages stay
    together.

    Attributes:
        val_fraction: Fraction of the images to hold out; 0 if `folds` or `names` is given.
        folds: Number of folds for cross-validation.
        fold: The fold to hold out, 0 to folds - 1.
        seed: Seed of the selection.
        names: The `Sample.key` of each image to hold out, as recorded by a training run, in
            place of a random selection.

    Raises:
        DataError: If a value is out of range, or not exactly one of `val_fraction`, `folds` and
            `names` is given.
    """

    val_fraction: float = 0.0
    folds: int | None = None
    fold: int | None = None
    seed: int = 0
    names: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if (self.folds is None) != (self.fold is None):
            raise DataError(
                f"folds and fold must be given together, got folds {self.folds} and fold "
                f"{self.fold}"
            )
        chosen = [bool(self.val_fraction), self.folds is not None, self.names is not None]
        if sum(chosen) != 1:
            raise DataError(
                "expected either val_fraction or folds and fold, got val_fraction "
                f"{self.val_fraction:g} and folds {self.folds}"
            )
        if self.folds is None and not 0 <= self.val_fraction < 1:
            raise DataError(
                f"val_fraction must be between 0 and 1 (exclusive), got {self.val_fraction:g}"
            )
        if self.folds is not None and not (self.folds >= 2 and 0 <= (self.fold or 0) < self.folds):
            raise DataError(
                f"folds must be at least 2 and fold from 0 to folds - 1, got folds {self.folds} "
                f"and fold {self.fold}"
            )

    def held_out(self, samples: Sequence[Sample]) -> list[bool]:
        """Return whether each sample is held out: at least one of them, and not all.

        Raises:
            DataError: If there are too few samples, or recorded ones are missing.
        """
        if self.names is not None:
            return self._select_recorded(samples, self.names)
        min_groups = self.folds or 2
        if len(samples) < min_groups:
            raise DataError(
                f"{count_of(len(samples), 'image')} cannot be divided into {min_groups} parts; "
                "add images or use fewer --folds"
            )
        parts = self.folds or max(2, round(1 / self.val_fraction))
        groups = _group_samples(samples, parts, min_groups)
        groups.sort(key=lambda group: self._sort_key(samples[group[0]]))
        if self.folds:
            selected = set(self._select_fold(groups))
        else:
            selected = set(self._select_fraction(groups, len(samples)))
        return [index in selected for index in range(len(samples))]

    def describe(self, samples: Sequence[Sample]) -> str:
        """Describe in one line which samples are held out."""
        pairs = list(zip(samples, self.held_out(samples), strict=True))
        held_out = [_prefix(sample) for sample, is_held_out in pairs if is_held_out]
        kept = {_prefix(sample) for sample, is_held_out in pairs if not is_held_out}
        line = f"validation on {len(held_out)} of the {len(samples)} training images, held out"
        if len(set(held_out)) < len(held_out) and not kept & set(held_out):
            line += f" by file name prefix: {', '.join(sorted(set(held_out)))}"
        return line

    def _sort_key(self, sample: Sample) -> bytes:
        """Pseudo-random key that depends only on the seed and the name, for every version."""
        return hashlib.sha256(f"{self.seed} {sample.key}".encode()).digest()

    def _select_recorded(self, samples: Sequence[Sample], names: frozenset[str]) -> list[bool]:
        missing = sorted(names - {sample.key for sample in samples})
        if missing:
            raise DataError(
                f"the dataset lacks {count_of(len(missing), 'image')} that the training held out "
                f"(such as {missing[0]}); use the dataset that the network was trained on"
            )
        return [sample.key in names for sample in samples]

    def _select_fraction(self, groups: list[list[int]], count: int) -> list[int]:
        """Select, in order, each group that brings the number of images closer to the target."""
        target = min(count - 1, max(1, round(self.val_fraction * count)))
        selected: list[int] = []
        for group in groups:
            if abs(len(selected) + len(group) - target) < abs(len(selected) - target):
                selected += group
        return selected or min(groups, key=len)

    def _select_fold(self, groups: list[list[int]]) -> list[int]:
        """Assign groups to folds, largest first, each to the fold with the fewest images."""
        assert self.folds is not None
        assert self.fold is not None
        parts: list[list[int]] = [[] for _ in range(self.folds)]
        for group in sorted(groups, key=len, reverse=True):
            min(parts, key=len).extend(group)
        return parts[self.fold]


def _group_samples(samples: Sequence[Sample], parts: int, min_groups: int) -> list[list[int]]:
    """Group the indices of samples that must stay together.

    Args:
        samples: The samples.
        parts: Number of groups for the pages of a single stack.
        min_groups: With fewer file name prefixes than this, each sample is a group.
    """
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda i: (samples[i].image, samples[i].page)):
        groups.setdefault(_prefix(samples[index]), []).append(index)
    if len(groups) >= min_groups:
        return list(groups.values())
    if len({sample.image for sample in samples}) == 1:
        blocks = np.array_split(np.arange(len(samples)), min(parts, len(samples)))
        return [block.tolist() for block in blocks]
    return [[index] for index in range(len(samples))]


def _prefix(sample: Sample) -> str:
    """File name up to the first underscore."""
    return sample.image.stem.partition("_")[0]
