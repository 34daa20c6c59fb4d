"""Data sets of pictures with their class ids.

Two layouts are read, recognised by what the folder holds:

    DIR/classes.txt, DIR/<split>/*, DIR/<split>annot/*              (SegNet's CamVid)
    DIR/classes.txt, DIR/<split>.txt, DIR/images/*, DIR/labels/*    (MSRC; stems in <split>.txt)

`classes.txt` has a class name a line, in the order of the ids. A label is a picture of ids, 8-bit
grey or palette, of its picture's size; picture and label have the same stem and any suffix. 255 is
void; in the first layout the id after the last class is too, as in SegNet's CamVid.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import PictureError, read_picture

IGNORE_INDEX = 255
SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """A data set that cannot be used: which file, what it holds and what was expected."""


@dataclass(frozen=True)
class Sample:
    """One picture and its label file."""

    picture: Path
    label: Path


@dataclass(frozen=True)
class SegmentationData:
    """One split of a data set.

    class_names: in the order of the ids.
    void_ids: label values that stand for no class.
    """

    class_names: list[str]
    samples: list[Sample]
    void_ids: tuple[int, ...] = (IGNORE_INDEX,)

    def __len__(self) -> int:
        return len(self.samples)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        try:
            return read_picture(self.samples[index].picture)
        except PictureError as error:
            raise DataError(f"{self.samples[index].picture}: {error}") from error

    def target(self, index: int) -> NDArray[np.uint8]:
        """(H, W) class ids, void as 255. DataError for an id that is neither."""
        path = self.samples[index].label
        ids = _read_ids(path)
        ids[np.isin(ids, self.void_ids)] = IGNORE_INDEX
        unknown = np.unique(ids[(ids >= len(self.class_names)) & (ids != IGNORE_INDEX)])
        if unknown.size:
            raise DataError(
                f"{path} has ids {unknown.tolist()}; expected 0 to {len(self.class_names) - 1} "
                f"(the {len(self.class_names)} lines of classes.txt) or {IGNORE_INDEX} for void"
            )
        return ids

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(H, W, 3) picture and (H, W) target. DataError if their sizes differ."""
        picture, target = self.picture(index), self.target(index)
        if picture.shape[:2] != target.shape:
            sample = self.samples[index]
            raise DataError(
                f"{sample.label} is {target.shape[1]} x {target.shape[0]} pixels, its picture "
                f"{sample.picture} {picture.shape[1]} x {picture.shape[0]}; they must be equal"
            )
        return picture, target


def _read_ids(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode in ("L", "P", "1"):
                return np.array(image, dtype=np.uint8)
            mode = image.mode
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise DataError(f"{path} cannot be read as a label: {error}") from error
    raise DataError(
        f"{path} has mode {mode}; expected a picture of class ids, 8-bit grey or palette"
    )


def open_data(folder: str | Path, split: str) -> SegmentationData:
    """The split of the data set in `folder`. DataError names what is missing."""
    root = Path(folder)
    names = _class_names(root)
    if (root / f"{split}annot").is_dir():
        pictures, labels = _by_stem(root / split), _by_stem(root / f"{split}annot")
        stems = sorted(pictures.keys() | labels.keys())
        void_ids: tuple[int, ...] = (len(names), IGNORE_INDEX)
    elif (root / f"{split}.txt").is_file():
        pictures, labels = _by_stem(root / "images"), _by_stem(root / "labels")
        stems = _lines(root / f"{split}.txt")
        void_ids = (IGNORE_INDEX,)
    else:
        raise DataError(
            f"{root} has no split {split!r}: expected {split}/ with {split}annot/, or {split}.txt "
            f"with images/ and labels/; it holds {_listing(root)}"
        )
    if not stems:
        raise DataError(f"split {split!r} of {root} is empty")
    for kind, files in (("picture", pictures), ("label", labels)):
        missing = [stem for stem in stems if stem not in files]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(stems)} samples of {root}, split {split!r}, have no "
                f"{kind}: {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}"
            )
    return SegmentationData(
        names, [Sample(pictures[stem], labels[stem]) for stem in stems], void_ids
    )


def has_split(folder: str | Path, split: str) -> bool:
    """Whether anything of the split is there; `open_data` then says what it lacks."""
    root = Path(folder)
    return any((root / name).exists() for name in (split, f"{split}annot", f"{split}.txt"))


def class_frequencies(data: SegmentationData) -> NDArray[np.float64]:
    """(num_classes,) frequency of each class as SegNet's median-frequency balancing has it
    (section 4.1): its pixels over the pixels of the pictures that hold it; NaN if none does.
    Reads, and so checks, every label."""
    num_classes = len(data.class_names)
    pixels = np.zeros(num_classes)
    pixels_where_present = np.zeros(num_classes)
    for index in range(len(data)):
        target = data.target(index)
        counts = np.bincount(target[target != IGNORE_INDEX], minlength=num_classes)
        pixels += counts
        pixels_where_present += np.where(counts > 0, counts.sum(), 0)
    with np.errstate(invalid="ignore"):
        return pixels / pixels_where_present


def _class_names(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    path = root / "classes.txt"
    if not path.is_file():
        raise DataError(f"{root} has no classes.txt, a class name a line in the order of the ids")
    names = _lines(path)
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise DataError(f"{path} has {len(names)} class names; expected 1 to {IGNORE_INDEX}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has {', '.join(twice)} twice; class names must differ")
    return names


def _lines(path: Path) -> list[str]:
    """The lines that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.stem in files:
            raise DataError(
                f"{folder} has {files[path.stem].name} and {path.name}: one of them must go, since "
                "picture and label are matched by their stems"
            )
        files[path.stem] = path
    return files


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
