"""Datasets for semantic segmentation: images with a class id per pixel.

The layout is detected from the contents of the folder:

    DIR/<split>/*, DIR/<split>annot/*                       CamVid, as distributed with SegNet
    DIR/<split>.txt, DIR/images/*, DIR/labels/*             lists of stems, one per line
    DIR/images/*, DIR/labels/*                              without lists: all images are "train"
    DIR/<name>/images/*, DIR/<name>/masks/*                 2018 Data Science Bowl: one folder per
                                                            image, with one mask per cell
    DIR/ImageSets/Segmentation/<split>.txt, DIR/JPEGImages/*, DIR/SegmentationClass/*
                                                            PASCAL VOC

DIR/labels may be named DIR/masks. Each page of a multi-page TIFF is an image; its label is a TIFF
with the same number of pages.

`DIR/classes.txt` lists the class names, one per line, in the order of the class ids. It is optional
for the 21 classes of PASCAL VOC, for masks of background and foreground, and for instances. An
image and its label have the same stem, with any suffix; that of the label may end in `_L`, `_mask`
or `_label`. Labels are one of

    class ids, as 8-bit greyscale or palette images; 255 is void and, in the CamVid layout, so is
        the id after the last class, as in SegNet's version;
    colours, if the lines of classes.txt are `name r g b`, or if there is a DIR/label_colors.txt
        with lines `r g b name` (as in the original CamVid); the names `void`, `unlabelled` and
        `ignore` are not classes;
    binary masks, if there are two classes and the labels contain only 0 and 255;
    instances, if there are two classes (background and cell, unless classes.txt names them): cell
        numbers with 16 or more bits, or, instead of a label file, a folder with the same stem and
        one mask per cell.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segmodels.data.hold_out import HoldOut
from segmodels.data.image_io import ImageProperties, PictureError, inspect_image, read_channels
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
from segmodels.utils.formatting import count_of

__all__ = [
    "IGNORE_INDEX",
    "SPLITS",
    "DataError",
    "HoldOut",
    "Sample",
    "SegmentationData",
    "format_errors",
    "has_split",
    "open_data",
    "read_split",
]

ERRORS_SHOWN = 10
T = TypeVar("T")


@dataclass(frozen=True)
class SegmentationData:
    """One split of a dataset.

    Attributes:
        class_names: Class names, in the order of the class ids.
        samples: Files of each image and its label.
        encoding: Meaning of the labels' pixel values.
        layout: Location of the files.
        channels: Number of channels that images must have. None, 1 or 3: greyscale and RGB images
            are read with 3 channels, others with all of their channels.
    """

    class_names: list[str]
    samples: list[Sample]
    encoding: LabelEncoding
    layout: Layout
    channels: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read an image.

        Returns:
            (H, W, C) uint8; RGB for C = 3.

        Raises:
            DataError: If it cannot be read, or has another number of channels.
        """
        return self._read(index, read_channels)

    def inspect(self, index: int) -> tuple[NDArray[np.uint8], ImageProperties]:
        """Read an image as `image` does, together with the properties of its file."""
        return self._read(index, inspect_image)

    def _read(self, index: int, read: Callable[..., T]) -> T:
        channels = None if self.channels in (1, 3) else self.channels
        sample = self.samples[index]
        try:
            return read(sample.image, channels, page=sample.page)
        except PictureError as error:
            raise DataError(f"{sample.image.with_name(sample.name)}: {error}") from error

    def with_channels(self, channels: int) -> "SegmentationData":
        """The same split, with images for a network with this number of input channels."""
        return replace(self, channels=channels)

    def target(self, index: int) -> NDArray[np.uint8]:
        """Read the ground truth of an image.

        Returns:
            (H, W) uint8 class ids, 255 for void.

        Raises:
            DataError: If the label cannot be read, or contains an undeclared id or colour.
        """
        sample = self.samples[index]
        try:
            return self.encoding.read(sample.label, sample.page)
        except DataError as error:
            if sample.pages == 1:
                raise
            raise DataError(f"page {sample.page} of {error}") from error

    def cells(self, index: int) -> NDArray[np.int32] | None:
        """Read the instances of an image.

        Returns:
            (H, W) cell numbers, 0 outside cells; None if the label does not tell cells apart.

        Raises:
            DataError: If the label cannot be read.
        """
        sample = self.samples[index]
        return self.encoding.cells(sample.label, sample.page)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read an image and its ground truth.

        Returns:
            (H, W, C) uint8 image, see `image`, and (H, W) uint8 target, see `target`.

        Raises:
            DataError: If one of them cannot be read, or their sizes differ.
        """
        image, target = self.image(index), self.target(index)
        self.check_sizes(index, image, target)
        return image, target

    def check_sizes(self, index: int, image: NDArray, target: NDArray) -> None:
        """Raise DataError if an image and its target differ in height or width."""
        if image.shape[:2] != target.shape:
            sample = self.samples[index]
            raise DataError(
                f"{sample.label} is {target.shape[1]} x {target.shape[0]} pixels, but its image "
                f"{sample.image} is {image.shape[1]} x {image.shape[0]}; the sizes must be equal"
            )


def read_split(
    folder: str | Path, split: str, hold_out: HoldOut | None = None
) -> tuple[SegmentationData, list[str]]:
    """Find the files of a split, without checking their contents.

    Args:
        folder: Folder of the dataset.
        split: "train", "val", "test" or another split of the dataset.
        hold_out: How to divide the training images into "train" and "val", for a dataset without
            a split "val". Folds divide the images of "train" and "val" together.

    Returns:
        The split, without samples that have errors, and the errors.

    Raises:
        DataError: If there is no such split, its classes are unknown, or it cannot be divided.
    """
    root = Path(folder)
    if hold_out is not None and split in ("train", "val"):
        data, errors = training_data(root, hold_out)
        held_out = hold_out.held_out(data.samples)
        pairs = zip(data.samples, held_out, strict=True)
        selected = [sample for sample, is_held_out in pairs if is_held_out == (split == "val")]
        return replace(data, samples=selected), errors
    layout = layout_of(root, split)
    classes, encoding = classes_of(root, layout)
    samples, errors = samples_of(layout)
    if not samples and not errors:
        errors = [f"split {split!r} of {root} is empty"]
    return SegmentationData(classes.names, samples, encoding, layout), errors


def training_data(root: Path, hold_out: HoldOut) -> tuple[SegmentationData, list[str]]:
    """Find the files that `hold_out` divides, see `read_split`.

    Raises:
        DataError: If the dataset has a split "val" and `hold_out` is a fraction.
    """
    data, errors = read_split(root, "train")
    if not has_split(root, "val"):
        return data, errors
    if hold_out.val_fraction:
        raise DataError(
            f"{root} already has a split 'val'; omit --val-fraction, or use --folds, which divides "
            "the images of 'train' and 'val' together"
        )
    val, val_errors = read_split(root, "val")
    return replace(data, samples=[*data.samples, *val.samples]), [*errors, *val_errors]


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
        folder: Folder of the dataset.
        split: "train", "val", "test" or another split of the dataset; "all" for every image of a
            dataset without lists.
        val_fraction: Fraction of the training images that become "val", for a dataset without a
            split "val"; images with a common file name prefix stay together, see `HoldOut`.
        folds: Number of folds for cross-validation, in place of `val_fraction`; they divide the
            images of "train" and, if there is one, "val".
        fold: The fold that becomes "val", 0 to folds - 1.
        seed: Seed of the division.

    Raises:
        DataError: If files are missing or inconsistent, or the images cannot be divided.
    """
    hold_out = hold_out_of(val_fraction, folds, fold, seed)
    return open_split(folder, split, hold_out)


def open_split(folder: str | Path, split: str, hold_out: HoldOut | None) -> SegmentationData:
    """Open a split, see `read_split`.

    Raises:
        DataError: Also for errors that `read_split` returns.
    """
    data, errors = read_split(folder, split, hold_out)
    if errors:
        raise DataError(format_errors(errors))
    return data


def hold_out_of(
    val_fraction: float, folds: int | None, fold: int | None, seed: int
) -> HoldOut | None:
    """Create a `HoldOut` from options; None if they do not hold out any images."""
    if not val_fraction and folds is None and fold is None:
        return None
    return HoldOut(val_fraction, folds, fold, seed)


def format_errors(errors: list[str]) -> str:
    """Format errors, one per line; only the first ten of them, and the number of the others."""
    if len(errors) == 1:
        return errors[0]
    more = len(errors) - ERRORS_SHOWN
    lines = [f"{count_of(len(errors), 'error')}:", *errors[:ERRORS_SHOWN]]
    return "\n  ".join(lines + [f"and {more} more"] * (more > 0))
