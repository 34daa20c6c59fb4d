"""Validation of datasets: reads every file, collects all errors and summarizes the contents."""

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
    format_errors,
    has_split,
    read_split,
)
from segmodels.data.depth import Depth
from segmodels.data.image_io import ImageProperties
from segmodels.data.labels import Color, Kind, LabelImage, load_label
from segmodels.utils.formatting import count_of, percent

MAX_THREADS = 8
ALL_SPLITS = (*SPLITS, "trainval")  # "trainval": PASCAL VOC


@dataclass(frozen=True)
class LabelProperties:
    """Contents of a label file, not interpreted as class ids.

    Attributes:
        kind: Type of the stored pixels.
        counts: {value: number of pixels}; empty for colour images.
        palette: {value: color} for the values of a palette image.
        shape: (H, W).
        orientation: EXIF orientation, 1 to 8, which has been applied.
    """

    kind: Kind
    counts: dict[int, int]
    palette: dict[int, Color]
    shape: tuple[int, int]
    orientation: int


@dataclass(frozen=True)
class SampleReport:
    """Contents of an image and its label.

    Attributes:
        sample: The files.
        shape: (H, W) of the image, None if it cannot be read.
        image: Properties of the image, None if it cannot be read.
        label: Properties of the label, None if it cannot be read.
        counts: (num_classes + 1,) number of pixels of each class and of void (last); None if the
            sample has errors.
        digests: {"folder/file": hash of the content}.
        errors: A sentence for each error.
    """

    sample: Sample
    shape: tuple[int, int] | None
    image: ImageProperties | None
    label: LabelProperties | None
    counts: NDArray[np.int64] | None
    digests: dict[str, str]
    errors: list[str]


@dataclass(frozen=True)
class SplitReport:
    """Contents of a split.

    Attributes:
        data: The split.
        samples: Report for each sample.
        errors: A sentence for each error, with the file. Samples with errors are not counted.
    """

    data: SegmentationData
    samples: list[SampleReport]
    errors: list[str]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(images, num_classes + 1) number of pixels of each class and of void (last)."""
        counts = [sample.counts for sample in self.samples if sample.counts is not None]
        return np.array(counts, np.int64).reshape(len(counts), len(self.data.class_names) + 1)

    @cached_property
    def sizes(self) -> Counter[tuple[int, int]]:
        """{(width, height): number of images}."""
        shapes = [one.label.shape for one in self.samples if one.counts is not None and one.label]
        return Counter(shape[::-1] for shape in shapes)

    @cached_property
    def digests(self) -> dict[str, str]:
        """{"folder/file": hash of the content} for images and labels."""
        return {name: digest for one in self.samples for name, digest in one.digests.items()}

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(num_classes,) class frequencies for median-frequency balancing (SegNet, section 4.1).

        The frequency of a class is its number of pixels divided by the number of labelled pixels
        in the images that contain it; NaN for absent classes.
        """
        counts = self.counts
        pixels = counts[:, :-1]
        labelled = pixels.sum(1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return pixels.sum(0) / np.where(pixels > 0, labelled, 0).sum(0)


# ---- reading ----


def check_split(data: SegmentationData, errors: Iterable[str] = ()) -> SplitReport:
    """Read every image and label of a split once.

    Args:
        data: The split.
        errors: Known errors to include in the report.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(partial(_check_sample, data), range(len(data)))
        samples = list(
            tqdm(found, "checking", len(data), unit="image", delay=2, leave=False, disable=None)
        )
    return SplitReport(data, samples, [*errors, *(e for one in samples for e in one.errors)])


def check_splits(
    folder: str | Path, splits: Iterable[str], hold_out: HoldOut | None = None
) -> dict[str, SplitReport]:
    """Check splits and require that they have no errors.

    Returns:
        {split: report}.

    Raises:
        DataError: If a split does not exist, or with a list of all errors if there are any.
    """
    reports = {split: check_split(*read_split(folder, split, hold_out)) for split in splits}
    errors = [error for report in reports.values() for error in report.errors]
    if errors:
        raise DataError(format_errors(errors))
    return reports


def check_dataset(folder: Path) -> tuple[dict[str, SplitReport], list[str]]:
    """Check all splits of a dataset.

    Returns:
        {split: report}, and all errors.

    Raises:
        DataError: If there is no split.
    """
    reports: dict[str, SplitReport] = {}
    errors: list[str] = []
    for split in ALL_SPLITS:
        if has_split(folder, split):
            try:
                reports[split] = check_split(*read_split(folder, split))
            except DataError as error:
                errors += [str(error)] * (str(error) not in errors)
    for report in reports.values():
        errors += [error for error in report.errors if error not in errors]
    if not reports and not errors:
        read_split(folder, SPLITS[0])  # raises the error that describes the expected layouts
    if reports and "train" not in reports:
        errors.append("there is no split 'train', which is required for training")
    return reports, errors


def changed_files(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Compare the digests of two reports: names of changed, missing and new files."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def _check_sample(data: SegmentationData, index: int) -> SampleReport:
    sample = data.samples[index]
    errors: list[str] = []
    shape, properties, label, ids = None, None, None, None
    try:
        image, properties = data.inspect(index)
        shape = (image.shape[0], image.shape[1])
    except DataError as error:
        errors.append(str(error))
    try:
        loaded = load_label(sample.label, page=sample.page)
        label = _label_properties(loaded)
        ids = data.encoding.ids(loaded, sample.label)
    except DataError as error:
        errors.append((f"page {sample.page} of " if sample.pages > 1 else "") + str(error))
    if shape is not None and properties is not None and label is not None and shape != label.shape:
        errors.append(_size_error(sample, shape, properties, label))
    digests = {f"{path.parent.name}/{path.name}": _digest(path) for path in sample.files}
    counts = None
    if ids is not None and not errors:
        pixels = np.bincount(ids.ravel(), minlength=256)
        counts = np.append(pixels[: len(data.class_names)], pixels[255])
    return SampleReport(sample, shape, properties, label, counts, digests, errors)


def _label_properties(label: LabelImage) -> LabelProperties:
    table = [] if label.palette is None else label.palette.tolist()
    colors = {value: table[value] for value in label.counts if value < len(table)}
    return LabelProperties(
        label.kind,
        label.counts,
        {value: (r, g, b) for value, (r, g, b) in colors.items()},
        (label.pixels.shape[0], label.pixels.shape[1]),
        label.orientation,
    )


def _size_error(
    sample: Sample, shape: tuple[int, int], image: ImageProperties, label: LabelProperties
) -> str:
    message = (
        f"{sample.label} is {label.shape[1]} x {label.shape[0]} pixels, but its image "
        f"{sample.image} is {shape[1]} x {shape[0]}; the sizes must be equal"
    )
    if shape == label.shape[::-1] and image.orientation != label.orientation:
        message += (
            f": the image has the EXIF orientation {image.orientation}, which the label lacks; "
            "save both upright, without the tag"
        )
    return message


def _digest(path: Path) -> str:
    """Hash of a file, or of all files in a folder; "" if one cannot be read."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = blake2b(digest_size=8)
    try:
        for file in files:
            with open_regular(file) as content:
                digest.update(content.read())
        return digest.hexdigest()
    except (OSError, PictureError):  # reported when the image or label is read
        return ""


# ---- summaries ----


def describe(folder: Path, reports: Mapping[str, SplitReport]) -> str:
    """Format a summary of a dataset as text.

    It contains the layout, the sizes and value ranges of the images in each split, and the
    frequency of each class.
    """
    first = next(iter(reports.values())).data
    lines = [f"{folder}: {first.layout.name}, labels: {first.encoding.describe()}", ""]
    lines.append(f"{'split':<10}{'images':>9}{'void':>9}  sizes")
    for split, report in reports.items():
        void = report.counts[:, -1].sum() / max(1, report.counts.sum())
        lines.append(f"{split:<10}{len(report.data):>9}{percent(void):>7} %  {_sizes(report)}")
    lines += ["", f"{'split':<10}image values"]
    lines += [f"{split:<10}{_values(report)}" for split, report in reports.items()]
    header = "".join(f"{split:>12} %{'images':>10}" for split in reports)
    width = max(5, *map(len, first.class_names)) + 2
    lines += ["", f"{'id':>3}  {'class':<{width}}{header}"]
    for class_id, name in enumerate(first.class_names):
        columns = "".join(_class_columns(report, class_id) for report in reports.values())
        lines.append(f"{class_id:>3}  {name:<{width}}{columns}")
    return "\n".join(lines) + "\n"


def shared_images(reports: Mapping[str, SplitReport]) -> Iterator[str]:
    """Describe each pair of splits that share identical files; "trainval" is not considered."""
    contents = {split: _image_digests(report) for split, report in reports.items()}
    splits = [split for split in contents if split != "trainval"]
    for index, first in enumerate(splits):
        for second in splits[index + 1 :]:
            shared = contents[first].keys() & contents[second].keys()
            if shared:
                names = ", ".join(sorted(contents[first][digest] for digest in shared)[:3])
                yield (
                    f"{first!r} and {second!r} share {count_of(len(shared), 'image')} "
                    f"({names}): metrics on one of them are too optimistic after training on the "
                    "other"
                )


def _image_digests(report: SplitReport) -> dict[str, str]:
    """{hash: "folder/file"} for the images of a split."""
    names = {f"{s.image.parent.name}/{s.image.name}" for s in report.data.samples}
    return {digest: name for name, digest in report.digests.items() if name in names}


def _sizes(report: SplitReport) -> str:
    """The most frequent sizes, width x height."""
    shown = [f"{width} x {height}" for (width, height), _ in report.sizes.most_common(3)]
    more = len(report.sizes) - len(shown)
    return ", ".join(shown) + f" and {more} more" * (more > 0)


def _values(report: SplitReport) -> str:
    """Data type, range and number of levels of the images."""
    depths: dict[tuple[str, float], list[Depth]] = {}
    for sample in report.samples:
        if sample.image is not None:
            depth = sample.image.depth
            depths.setdefault((depth.kind, depth.white), []).append(depth)
    parts = [_describe_depths(group) for group in depths.values()]
    if len(parts) > 1:
        sizes = [len(group) for group in depths.values()]
        parts = [f"{size} with {part}" for size, part in zip(sizes, parts, strict=True)]
    return "; ".join(parts)


def _describe_depths(depths: list[Depth]) -> str:
    smallest, largest = min(d.smallest for d in depths), max(d.largest for d in depths)
    part = f"{depths[0].kind} from {smallest:g} to {largest:g}"
    levels = [d.levels for d in depths if d.levels is not None]
    if levels:
        fewest, most = min(levels), max(levels)
        part += f", {most if fewest == most else f'{fewest} to {most}'} levels per image"
    white = depths[0].white
    return part + f", white at {white:g}" * (white != 255)


def _class_columns(report: SplitReport, class_id: int) -> str:
    """Fraction of the labelled pixels, and number of images with the class."""
    pixels = report.counts[:, class_id]
    share = pixels.sum() / max(1, report.counts[:, :-1].sum())
    return f"{percent(share):>14}{int((pixels > 0).sum()):>10}"
