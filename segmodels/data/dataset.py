"""Datasets of images with their class ids.

Five layouts are read, recognised by what the folder holds:

    DIR/<split>/*, DIR/<split>annot/*                       SegNet's CamVid
    DIR/<split>.txt, DIR/images/*, DIR/labels/*             lists of stems, a stem a line
    DIR/images/*, DIR/labels/*                              without lists: all images are "train"
    DIR/<name>/images/*, DIR/<name>/masks/*                 2018 Data Science Bowl's: of each image
                                                            a folder, with a mask for each cell
    DIR/ImageSets/Segmentation/<split>.txt, DIR/JPEGImages/*, DIR/SegmentationClass/*
                                                            PASCAL VOC

DIR/labels may be called DIR/masks. A TIFF of several pages is as many images, and its label then a
TIFF of as many pages.

`DIR/classes.txt` has a class name a line, in the order of the ids. It may be left out for PASCAL
VOC's own 21 classes and for masks of background and foreground. Image and label have the same
stem, the label's perhaps with `_L`, `_mask` or `_label` behind it, and any suffix. Labels are

    images of ids, 8-bit grey or palette; 255 is void, and in the first layout the id after the
        last class is too, as in SegNet's CamVid;
    images of colors, if the lines of classes.txt are `name r g b`, or DIR/label_colors.txt has
        lines of `r g b name` (CamVid's own); a name `void` (or unlabelled, ignore) is no class;
    masks of 0 and 255, if there are two classes and the labels hold nothing else;
    instances, if there are two classes (background and cell unless classes.txt names them): numbers
        of the cells in 16 or more bits, or in place of a label's file a folder of that stem with a
        mask for each cell.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segmodels.data.hold_out import HoldOut
from segmodels.data.image_io import ImageFacts, PictureError, inspect_image, read_channels
from segmodels.data.labels import IGNORE_INDEX, DataError, LabelEncoding
from segmodels.data.layouts import (
    SPLITS,
    Layout,
    Sample,
    classes_of,
    has_split,
    layout_of,
    samples_of,
)

__all__ = [
    "IGNORE_INDEX",
    "SPLITS",
    "DataError",
    "HoldOut",
    "Sample",
    "SegmentationData",
    "has_split",
    "list_errors",
    "open_data",
    "read_split",
]

ERRORS_SHOWN = 10
T = TypeVar("T")


@dataclass(frozen=True)
class SegmentationData:
    """One split of a dataset.

    Attributes:
        class_names: In the order of the ids.
        samples: Its images.
        encoding: Of the labels.
        layout: Where the files are.
        channels: Of the images; None, 1 or 3: 3 for grey and RGB images, else all that they have.
    """

    class_names: list[str]
    samples: list[Sample]
    encoding: LabelEncoding
    layout: Layout
    channels: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """(H, W, C) uint8, RGB for C = 3. DataError if it cannot be read, or has other channels."""
        return self._read(index, read_channels)

    def inspect(self, index: int) -> tuple[NDArray[np.uint8], ImageFacts]:
        """`picture`, and what else its file says."""
        return self._read(index, inspect_image)

    def _read(self, index: int, read: Callable[..., T]) -> T:
        channels = None if self.channels in (1, 3) else self.channels
        sample = self.samples[index]
        try:
            return read(sample.picture, channels, page=sample.page)
        except PictureError as error:
            raise DataError(f"{sample.picture.with_name(sample.name)}: {error}") from error

    def with_channels(self, channels: int) -> "SegmentationData":
        """The same with images for a network of so many input channels."""
        return replace(self, channels=channels)

    def target(self, index: int) -> NDArray[np.uint8]:
        """(H, W) class ids, void as 255. DataError for an id or a color that is neither."""
        sample = self.samples[index]
        try:
            return self.encoding.read(sample.label, sample.page)
        except DataError as error:
            if sample.pages == 1:
                raise
            raise DataError(f"page {sample.page} of {error}") from error

    def cells(self, index: int) -> NDArray[np.int32] | None:
        """(H, W) numbers of the cells, 0 outside them; None unless the labels are instances."""
        sample = self.samples[index]
        return self.encoding.cells(sample.label, sample.page)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(H, W, C) image and (H, W) target. DataError if their sizes differ."""
        picture, target = self.picture(index), self.target(index)
        self.check_sizes(index, picture, target)
        return picture, target

    def check_sizes(self, index: int, picture: NDArray, target: NDArray) -> None:
        """DataError if a sample's image and target differ in height or width."""
        if picture.shape[:2] != target.shape:
            sample = self.samples[index]
            raise DataError(
                f"{sample.label} is {target.shape[1]} x {target.shape[0]} pixels, its image "
                f"{sample.picture} {picture.shape[1]} x {picture.shape[0]}; they must be equal"
            )


def read_split(
    folder: str | Path, split: str, hold_out: HoldOut | None = None
) -> tuple[SegmentationData, list[str]]:
    """Read what a split consists of; images and labels are not opened yet.

    Args:
        folder: Of the dataset.
        split: "train", "val", ...
        hold_out: How "train" and "val" are divided, for a dataset without a split "val". Folds
            divide "train" and "val" together.

    Returns:
        What of the split can be used, and the errors in its files' names.

    Raises:
        DataError: If there is no such split, nothing tells its classes, or it cannot be divided.
    """
    root = Path(folder)
    if hold_out is not None and split in ("train", "val"):
        whole, errors = training_images(root, hold_out)
        held_out = hold_out.held_out(whole.samples)
        pairs = zip(whole.samples, held_out, strict=True)
        chosen = [sample for sample, is_held in pairs if is_held == (split == "val")]
        return replace(whole, samples=chosen), errors
    layout = layout_of(root, split)
    classes, encoding = classes_of(root, layout)
    samples, errors = samples_of(layout)
    if not samples and not errors:
        errors = [f"split {split!r} of {root} is empty"]
    return SegmentationData(classes.names, samples, encoding, layout), errors


def training_images(root: Path, hold_out: HoldOut) -> tuple[SegmentationData, list[str]]:
    """`read_split` of all the images that are divided.

    Raises:
        DataError: If there is a split "val" already, unless folds divide it too.
    """
    data, errors = read_split(root, "train")
    if not has_split(root, "val"):
        return data, errors
    if hold_out.val_fraction:
        raise DataError(
            f"{root} has a split 'val' of its own: leave out --val-fraction, or choose --folds, "
            "which divide 'train' and 'val' together"
        )
    val, more = read_split(root, "val")
    return replace(data, samples=[*data.samples, *val.samples]), [*errors, *more]


def open_data(
    folder: str | Path,
    split: str,
    *,
    val_fraction: float = 0.0,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> SegmentationData:
    """Open a split of a dataset.

    Args:
        folder: Of the dataset.
        split: "train", "val", "test" or any other that the dataset has; "all" for every image of a
            dataset without lists.
        val_fraction: For a dataset without a split "val": the share of its training images that
            become "val", by groups where file names have a common first part, see `HoldOut`.
        folds: Divide "train" (and "val", if there is one) into so many parts instead.
        fold: The part that becomes "val", 0 to folds - 1.
        seed: Of the draw.

    Raises:
        DataError: Naming what is missing or wrong.
    """
    hold_out = hold_out_of(val_fraction, folds, fold, seed)
    return open_split(folder, split, hold_out)


def open_split(folder: str | Path, split: str, hold_out: HoldOut | None) -> SegmentationData:
    """`read_split`. DataError for any error."""
    data, errors = read_split(folder, split, hold_out)
    if errors:
        raise DataError(list_errors(errors))
    return data


def hold_out_of(
    val_fraction: float, folds: int | None, fold: int | None, seed: int
) -> HoldOut | None:
    """The `HoldOut` of these options, None if they hold out nothing."""
    if not val_fraction and folds is None and fold is None:
        return None
    return HoldOut(val_fraction, folds, fold, seed)


def list_errors(errors: list[str]) -> str:
    """The first ten, a line each, and how many more there are."""
    if len(errors) == 1:
        return errors[0]
    more = len(errors) - ERRORS_SHOWN
    lines = [f"{len(errors)} errors:", *errors[:ERRORS_SHOWN]]
    return "\n  ".join(lines + [f"and {more} more"] * (more > 0))
