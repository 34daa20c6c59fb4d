"""Data sets of pictures with their class ids.

Three layouts are read, recognised by what the folder holds:

    DIR/<split>/*, DIR/<split>annot/*                       SegNet's CamVid
    DIR/<split>.txt, DIR/images/*, DIR/labels/*             lists of stems, a stem a line
    DIR/ImageSets/Segmentation/<split>.txt, DIR/JPEGImages/*, DIR/SegmentationClass/*
                                                            PASCAL VOC

`DIR/classes.txt` has a class name a line, in the order of the ids. It may be left out for PASCAL
VOC's own 21 classes and for masks of background and foreground. Picture and label have the same
stem, the label's perhaps with `_L`, `_mask` or `_label` behind it, and any suffix. Labels are

    pictures of ids, 8-bit grey or palette; 255 is void, and in the first layout the id after the
        last class is too, as in SegNet's CamVid;
    pictures of colours, if the lines of classes.txt are `name r g b`, or DIR/label_colors.txt has
        lines of `r g b name` (CamVid's own); a name `void` (or unlabelled, ignore) is no class;
    masks of 0 and 255, if there are two classes and the labels hold nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmodels.data.image_io import PictureError, read_image_array
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
    "Sample",
    "SegmentationData",
    "has_split",
    "list_mistakes",
    "open_data",
    "read_split",
]

MISTAKES_SHOWN = 10


@dataclass(frozen=True)
class SegmentationData:
    """One split of a data set. class_names: in the order of the ids."""

    class_names: list[str]
    samples: list[Sample]
    encoding: LabelEncoding
    layout: Layout

    def __len__(self) -> int:
        return len(self.samples)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        try:
            return read_image_array(self.samples[index].picture)
        except PictureError as error:
            raise DataError(f"{self.samples[index].picture}: {error}") from error

    def target(self, index: int) -> NDArray[np.uint8]:
        """(H, W) class ids, void as 255. DataError for an id or a colour that is neither."""
        return self.encoding.read(self.samples[index].label)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(H, W, 3) picture and (H, W) target. DataError if their sizes differ."""
        picture, target = self.picture(index), self.target(index)
        self.check_sizes(index, picture, target)
        return picture, target

    def check_sizes(self, index: int, picture: NDArray, target: NDArray) -> None:
        """DataError if a sample's picture and target differ in height or width."""
        if picture.shape[:2] != target.shape:
            sample = self.samples[index]
            raise DataError(
                f"{sample.label} is {target.shape[1]} x {target.shape[0]} pixels, its picture "
                f"{sample.picture} {picture.shape[1]} x {picture.shape[0]}; they must be equal"
            )


def read_split(folder: str | Path, split: str) -> tuple[SegmentationData, list[str]]:
    """What of the split can be used, and the mistakes in its files' names; pictures and labels are
    not opened yet. DataError if there is no such split, or nothing tells its classes."""
    root = Path(folder)
    layout = layout_of(root, split)
    classes, encoding = classes_of(root, layout)
    samples, mistakes = samples_of(layout)
    if not samples and not mistakes:
        mistakes = [f"split {split!r} of {root} is empty"]
    return SegmentationData(classes.names, samples, encoding, layout), mistakes


def open_data(folder: str | Path, split: str) -> SegmentationData:
    """The split of the data set in `folder`. DataError names what is missing."""
    data, mistakes = read_split(folder, split)
    if mistakes:
        raise DataError(list_mistakes(mistakes))
    return data


def list_mistakes(mistakes: list[str]) -> str:
    """The first ten, a line each, and how many more there are."""
    if len(mistakes) == 1:
        return mistakes[0]
    more = len(mistakes) - MISTAKES_SHOWN
    lines = [f"{len(mistakes)} mistakes:", *mistakes[:MISTAKES_SHOWN]]
    return "\n  ".join(lines + [f"and {more} more"] * (more > 0))
