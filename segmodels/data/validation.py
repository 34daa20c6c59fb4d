"""Reading every file of a dataset: what it holds, and all that is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segmodels.data._untrusted_images import PictureError, open_regular
from segmodels.data.dataset import (
    SPLITS,
    DataError,
    HoldOut,
    Sample,
    SegmentationData,
    has_split,
    list_errors,
    read_split,
)
from segmodels.data.image_io import Depth, ImageFacts
from segmodels.data.labels import Color, Kind, LabelImage, load_label
from segmodels.utils.formatting import percent

MAX_THREADS = 8
ALL_SPLITS = (*SPLITS, "trainval")  # the last is PASCAL VOC's


@dataclass(frozen=True)
class LabelFacts:
    """What a label file holds, before its values are ids.

    Attributes:
        kind: How its pixels are stored.
        counts: {value: number of pixels}; empty for an image of colors.
        palette: {value: its color}, for the values of a palette image.
        shape: (H, W).
        orientation: EXIF's, 1 to 8.
    """

    kind: Kind
    counts: dict[int, int]
    palette: dict[int, Color]
    shape: tuple[int, int]
    orientation: int


@dataclass(frozen=True)
class Look:
    """What the two files of a sample hold.

    Attributes:
        sample: The files.
        shape: (H, W) of the image, None if it cannot be read.
        image: Of the image, None if it cannot be read.
        label: Of the label, None if it cannot be read.
        counts: (num_classes + 1,) pixels of each class, and last of void; None if the sample
            cannot be used.
        digests: {"folder/file": hash of its bytes}.
        errors: What is wrong, a sentence each.
    """

    sample: Sample
    shape: tuple[int, int] | None
    image: ImageFacts | None
    label: LabelFacts | None
    counts: NDArray[np.int64] | None
    digests: dict[str, str]
    errors: list[str]


@dataclass(frozen=True)
class Survey:
    """What the images and labels of one split hold.

    Attributes:
        data: The split.
        looks: Of each sample.
        errors: What is wrong, a sentence each with its file; such files are in no count.
    """

    data: SegmentationData
    looks: list[Look]
    errors: list[str]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(images, num_classes + 1) pixels of each class, and last of void."""
        counts = [look.counts for look in self.looks if look.counts is not None]
        return np.array(counts, np.int64).reshape(len(counts), len(self.data.class_names) + 1)

    @cached_property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many images have each (width, height)."""
        shapes = [one.label.shape for one in self.looks if one.counts is not None and one.label]
        return Counter(shape[::-1] for shape in shapes)

    @cached_property
    def digests(self) -> dict[str, str]:
        """{"folder/file": hash of its bytes} of images and labels."""
        return {name: digest for look in self.looks for name, digest in look.digests.items()}

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(num_classes,) of each class as SegNet's median-frequency balancing has it (section
        4.1): its pixels over the pixels of the images that hold it; NaN if none does."""
        counts = self.counts
        pixels = counts[:, :-1]
        known = pixels.sum(1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return pixels.sum(0) / np.where(pixels > 0, known, 0).sum(0)


# ---- reading ----


def survey(data: SegmentationData, errors: Iterable[str] = ()) -> Survey:
    """Read every image and label once.

    Args:
        data: The split.
        errors: Those that are known already.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(partial(_look, data), range(len(data)))
        looks = list(
            tqdm(found, "checking", len(data), unit="image", delay=2, leave=False, disable=None)
        )
    return Survey(data, looks, [*errors, *(one for look in looks for one in look.errors)])


def survey_splits(
    folder: str | Path, splits: Iterable[str], hold_out: HoldOut | None = None
) -> dict[str, Survey]:
    """DataError for a split that is not there, or for all errors in them together."""
    surveys = {split: survey(*read_split(folder, split, hold_out)) for split in splits}
    errors = [error for one in surveys.values() for error in one.errors]
    if errors:
        raise DataError(list_errors(errors))
    return surveys


def survey_all(folder: Path) -> tuple[dict[str, Survey], list[str]]:
    """Every split that there is, and the errors of all."""
    surveys: dict[str, Survey] = {}
    errors: list[str] = []
    for split in ALL_SPLITS:
        if has_split(folder, split):
            try:
                surveys[split] = survey(*read_split(folder, split))
            except DataError as error:
                errors += [str(error)] * (str(error) not in errors)
    for found in surveys.values():
        errors += [error for error in found.errors if error not in errors]
    if not surveys and not errors:
        read_split(folder, SPLITS[0])  # whose error says what was expected
    if surveys and "train" not in surveys:
        errors.append("there is no split 'train', which a training needs")
    return surveys, errors


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Files of two surveys' digests that are not the same: changed, gone or new."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _look(data: SegmentationData, index: int) -> Look:
    sample = data.samples[index]
    errors: list[str] = []
    shape, facts, label, ids = None, None, None, None
    try:
        image, facts = data.inspect(index)
        shape = (image.shape[0], image.shape[1])
    except DataError as error:
        errors.append(str(error))
    try:
        loaded = load_label(sample.label, page=sample.page)
        label = _facts_of(loaded)
        ids = data.encoding.ids(loaded, sample.label)
    except DataError as error:
        errors.append((f"page {sample.page} of " if sample.pages > 1 else "") + str(error))
    if shape is not None and facts is not None and label is not None and shape != label.shape:
        errors.append(_sizes_differ(sample, shape, facts, label))
    digests = {f"{path.parent.name}/{path.name}": _digest(path) for path in sample.files}
    counts = None
    if ids is not None and not errors:
        pixels = np.bincount(ids.ravel(), minlength=256)
        counts = np.append(pixels[: len(data.class_names)], pixels[255])
    return Look(sample, shape, facts, label, counts, digests, errors)


def _facts_of(label: LabelImage) -> LabelFacts:
    table = [] if label.palette is None else label.palette.tolist()
    colors = {value: table[value] for value in label.counts if value < len(table)}
    return LabelFacts(
        label.kind,
        label.counts,
        {value: (r, g, b) for value, (r, g, b) in colors.items()},
        (label.pixels.shape[0], label.pixels.shape[1]),
        label.orientation,
    )


def _sizes_differ(
    sample: Sample, shape: tuple[int, int], image: ImageFacts, label: LabelFacts
) -> str:
    sentence = (
        f"{sample.label} is {label.shape[1]} x {label.shape[0]} pixels, its image {sample.picture} "
        f"{shape[1]} x {shape[0]}; they must be equal"
    )
    if shape == label.shape[::-1] and image.orientation != label.orientation:
        sentence += (
            f": EXIF turns the image (orientation {image.orientation}) and not the label; save "
            "both upright, without the tag"
        )
    return sentence


def _digest(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = blake2b(digest_size=8)
    try:
        for file in files:
            with open_regular(file) as content:
                digest.update(content.read())
        return digest.hexdigest()
    except (OSError, PictureError):  # which an error tells already
        return ""


# ---- in words and columns ----


def describe(folder: Path, surveys: Mapping[str, Survey]) -> str:
    """Layout, splits with their sizes and values, and the classes with their shares of pixels."""
    first = next(iter(surveys.values())).data
    lines = [f"{folder}: {first.layout.name}, labels of {first.encoding.describe()}", ""]
    lines.append(f"{'split':<10}{'images':>9}{'void':>9}  sizes")
    for split, one in surveys.items():
        void = one.counts[:, -1].sum() / max(1, one.counts.sum())
        lines.append(f"{split:<10}{len(one.data):>9}{percent(void):>7} %  {_sizes(one)}")
    lines += ["", f"{'split':<10}values of the images"]
    lines += [f"{split:<10}{_values(one)}" for split, one in surveys.items()]
    head = "".join(f"{split:>12} %{'images':>10}" for split in surveys)
    width = max(5, *map(len, first.class_names)) + 2
    lines += ["", f"{'id':>3}  {'class':<{width}}{head}"]
    for class_id, name in enumerate(first.class_names):
        cells = "".join(_cells(one, class_id) for one in surveys.values())
        lines.append(f"{class_id:>3}  {name:<{width}}{cells}")
    return "\n".join(lines) + "\n"


def same_images(surveys: Mapping[str, Survey]) -> Iterator[str]:
    """A sentence for each two splits that share images, byte for byte; "trainval" is meant to."""
    contents = {split: _image_digests(one) for split, one in surveys.items()}
    splits = [split for split in contents if split != "trainval"]
    for number, first in enumerate(splits):
        for second in splits[number + 1 :]:
            shared = contents[first].keys() & contents[second].keys()
            if shared:
                names = ", ".join(sorted(contents[first][digest] for digest in shared)[:3])
                yield (
                    f"{first!r} and {second!r} share images, {len(shared)} in all ({names}): "
                    "metrics on the one flatter what was trained on the other"
                )


def _image_digests(one: Survey) -> dict[str, str]:
    """{hash: file name}"""
    names = {f"{s.picture.parent.name}/{s.picture.name}" for s in one.data.samples}
    return {digest: name for name, digest in one.digests.items() if name in names}


def _sizes(one: Survey) -> str:
    """The most frequent sizes, width x height."""
    shown = [f"{width} x {height}" for (width, height), _ in one.sizes.most_common(3)]
    more = len(one.sizes) - len(shown)
    return ", ".join(shown) + f" and {more} more" * (more > 0)


def _values(one: Survey) -> str:
    """Kind, range and levels of the images' values."""
    depths: dict[tuple[str, float], list[Depth]] = {}
    for look in one.looks:
        if look.image is not None:
            depth = look.image.depth
            depths.setdefault((depth.kind, depth.white), []).append(depth)
    parts = [_depths(group) for group in depths.values()]
    if len(parts) > 1:
        sizes = [len(group) for group in depths.values()]
        parts = [f"{size} of {part}" for size, part in zip(sizes, parts, strict=True)]
    return "; ".join(parts)


def _depths(depths: list[Depth]) -> str:
    smallest, largest = min(d.smallest for d in depths), max(d.largest for d in depths)
    part = f"{depths[0].kind} from {smallest:g} to {largest:g}"
    levels = [d.levels for d in depths if d.levels is not None]
    if levels:
        fewest, most = min(levels), max(levels)
        part += f", {most if fewest == most else f'{fewest} to {most}'} levels in an image"
    white = depths[0].white
    return part + f", white at {white:g}" * (white != 255)


def _cells(one: Survey, class_id: int) -> str:
    pixels = one.counts[:, class_id]
    share = pixels.sum() / max(1, one.counts[:, :-1].sum())
    return f"{percent(share):>14}{int((pixels > 0).sum()):>10}"
