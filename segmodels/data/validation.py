"""A look at every file of a data set: what it holds, and all that is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segmodels.data._untrusted_images import PictureError, open_regular
from segmodels.data.dataset import (
    DataError,
    HoldOut,
    SegmentationData,
    list_mistakes,
    read_split,
)

MAX_THREADS = 8


@dataclass(frozen=True)
class Survey:
    """What the pictures and labels of one split hold.

    counts: (pictures, num_classes + 1) pixels of each class, and last of void.
    sizes: how many pictures have each (width, height).
    digests: {"folder/file": hash of its bytes} of pictures and labels.
    mistakes: what is wrong, a sentence each with its file; such files are in no count.
    """

    data: SegmentationData
    counts: NDArray[np.int64]
    sizes: Counter[tuple[int, int]]
    digests: dict[str, str]
    mistakes: list[str]

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(num_classes,) of each class as SegNet's median-frequency balancing has it (section
        4.1): its pixels over the pixels of the pictures that hold it; NaN if none does."""
        pixels = self.counts[:, :-1]
        known = pixels.sum(1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return pixels.sum(0) / np.where(pixels > 0, known, 0).sum(0)


@dataclass(frozen=True)
class _Look:
    """What one sample holds; counts and size are None if it cannot be used."""

    counts: NDArray[np.int64] | None
    size: tuple[int, int] | None
    digests: dict[str, str]
    mistakes: list[str]


def survey(data: SegmentationData, mistakes: Iterable[str] = ()) -> Survey:
    """Read every picture and label. mistakes: those that are known already."""
    look = partial(_look, data)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(look, range(len(data)))
        bar = tqdm(found, "checking data", len(data), unit="picture", delay=2, leave=False)
        looks = list(bar)
    counts = [one.counts for one in looks if one.counts is not None]
    return Survey(
        data,
        np.array(counts, np.int64).reshape(len(counts), len(data.class_names) + 1),
        Counter(one.size for one in looks if one.size is not None),
        {name: digest for one in looks for name, digest in one.digests.items()},
        [*mistakes, *(mistake for one in looks for mistake in one.mistakes)],
    )


def survey_splits(
    folder: str | Path, splits: Iterable[str], hold_out: HoldOut | None = None
) -> dict[str, Survey]:
    """DataError for a split that is not there, or for all mistakes in them together."""
    surveys = {split: survey(*read_split(folder, split, hold_out)) for split in splits}
    mistakes = [mistake for one in surveys.values() for mistake in one.mistakes]
    if mistakes:
        raise DataError(list_mistakes(mistakes))
    return surveys


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Files of two surveys' digests that are not the same: changed, gone or new."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _look(data: SegmentationData, index: int) -> _Look:
    sample, mistakes = data.samples[index], []
    picture, target = None, None
    try:
        picture = data.picture(index)
    except DataError as error:
        mistakes.append(str(error))
    try:
        target = data.target(index)
        if picture is not None:
            data.check_sizes(index, picture, target)
    except DataError as error:
        mistakes.append(str(error))
    digests = {f"{path.parent.name}/{path.name}": _digest(path) for path in sample.files}
    if mistakes or target is None:
        return _Look(None, None, digests, mistakes)
    counts = np.bincount(target.ravel(), minlength=256)
    num_classes = len(data.class_names)
    height, width = target.shape
    return _Look(np.append(counts[:num_classes], counts[255]), (width, height), digests, [])


def _digest(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = blake2b(digest_size=8)
    try:
        for file in files:
            with open_regular(file) as opened_file:
                digest.update(opened_file.read())
        return digest.hexdigest()
    except (OSError, PictureError):  # which a mistake tells already
        return ""
