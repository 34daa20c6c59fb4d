"""Where the files of a data set lie, recognised by what its folder holds; see `dataset.py`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmodels.data.image_io import PictureError, page_count
from segmodels.data.labels import IGNORE_INDEX, Color, DataError, LabelEncoding, are_binary
from segmodels.utils.palette import voc_color

SPLITS = ("train", "val", "test")
WITHOUT_LISTS = ("train", "all")  # splits of images/ and masks/ without lists: every image
LISTS = "ImageSets/Segmentation"  # of PASCAL VOC
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
VOC_BORDER = (224, 224, 192)  # around its objects: void
BINARY_CLASSES = ("background", "foreground")
VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore")
STACK_SUFFIXES = (".tif", ".tiff")
LABEL_ENDS = ("_L", "_mask", "_label")  # that a label's stem may have after its picture's


@dataclass(frozen=True)
class Sample:
    """One image and its label.

    Attributes:
        picture: The image's file.
        label: The label's file.
        page: Of both, in files that are stacks of `pages` images; counted from 0.
        pages: In the files.
    """

    picture: Path
    label: Path
    page: int = 0
    pages: int = 1

    @property
    def name(self) -> str:
        """The file's name, with the page of a stack: "stack.tif[3]"."""
        return self.picture.name + (f"[{self.page}]" if self.pages > 1 else "")

    @property
    def files(self) -> tuple[Path, ...]:
        """Image and label; of a stack those of the first page alone, so that each comes once."""
        return (self.picture, self.label) if self.page == 0 else ()

    @property
    def key(self) -> str:
        """The name with its folder's, which no other image of the dataset has."""
        return f"{self.picture.parent.name}/{self.name}"


@dataclass(frozen=True)
class Layout:
    """Where one split's files lie. stems: of its pictures; None: all that the folders hold."""

    name: str
    pictures: Path
    labels: Path
    stems: list[str] | None
    void_after_classes: bool = False


@dataclass(frozen=True)
class Classes:
    """names: in the order of the ids. colors: of each, and of void; None if none are declared."""

    names: list[str]
    colors: dict[Color, int] | None = None


def layout_of(root: Path, split: str) -> Layout:
    """DataError if the folder has no such split."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    if (root / f"{split}annot").is_dir():
        return Layout("SegNet's CamVid", root / split, root / f"{split}annot", None, True)
    if (root / LISTS / f"{split}.txt").is_file():
        pictures, labels = root / "JPEGImages", root / "SegmentationClass"
        return Layout("PASCAL VOC", pictures, labels, lines_of(root / LISTS / f"{split}.txt"))
    if (root / f"{split}.txt").is_file():
        stems = lines_of(root / f"{split}.txt")
        return Layout("lists of stems", root / "images", _labels_folder(root), stems)
    if _is_without_lists(root):
        if split in WITHOUT_LISTS:
            return Layout("images without lists", root / "images", _labels_folder(root), None)
        raise DataError(
            f"{root} has no lists, train.txt for example, and so no split {split!r}: all its "
            "images are 'train'; 'val' are those that a training holds out (--val-fraction, "
            "--folds)"
        )
    raise DataError(
        f"{root} has no split {split!r}: expected {split}/ with {split}annot/, or images/ with "
        f"labels/ or masks/ and perhaps {split}.txt, or PASCAL VOC's {LISTS}/{split}.txt; it holds "
        f"{_listing(root)}"
    )


def has_split(folder: str | Path, split: str) -> bool:
    """Whether anything of the split is there; `open_data` then says what it lacks."""
    root = Path(folder)
    names = (split, f"{split}annot", f"{split}.txt", f"{LISTS}/{split}.txt")
    if any((root / name).exists() for name in names):
        return True
    return split in WITHOUT_LISTS and _is_without_lists(root)


def _is_without_lists(root: Path) -> bool:
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return False
    return (root / "images").is_dir() and _labels_folder(root).is_dir()


def _labels_folder(root: Path) -> Path:
    """labels/, or masks/ where there is no labels/."""
    masks = root / "masks"
    return masks if masks.is_dir() and not (root / "labels").is_dir() else root / "labels"



def samples_of(layout: Layout) -> tuple[list[Sample], list[str]]:
    """The split's pictures with their labels, and what is wrong with the others."""
    mistakes: list[str] = []
    pictures = _by_stem(layout.pictures, mistakes)
    labels = _by_stem(layout.labels, mistakes)
    for stem in [stem for stem in labels if stem not in pictures]:
        owner = next((stem.removesuffix(end) for end in LABEL_ENDS if stem.endswith(end)), None)
        if owner in pictures and owner not in labels:
            labels[owner] = labels.pop(stem)
    stems = layout.stems
    if stems is None:
        stems = sorted(pictures.keys() | labels.keys())
    for stem, times in Counter(stems).items():
        if times > 1:
            mistakes.append(f"{stem} is listed {times} times; it must be listed once")
    for kind, folder, files in (
        ("picture", layout.pictures, pictures),
        ("label", layout.labels, labels),
    ):
        mistakes += [f"{stem} has no {kind} in {folder}" for stem in stems if stem not in files]
    whole = [stem for stem in dict.fromkeys(stems) if stem in pictures and stem in labels]
    samples = [
        sample for stem in whole for sample in _pages(pictures[stem], labels[stem], mistakes)
    ]
    return samples, mistakes


def _pages(picture: Path, label: Path, mistakes: list[str]) -> list[Sample]:
    """A sample for each page of a stack, one for any other file."""
    pages, of_label = _page_count(picture), _page_count(label)
    if pages != of_label:
        mistakes.append(
            f"{picture} has {pages} pages, its label {label} {of_label}; they must be equal"
        )
        return []
    return [Sample(picture, label, page, pages) for page in range(pages)]


def _page_count(path: Path) -> int:
    """1 for what is no stack, also for a file that cannot be read: reading it says why."""
    if path.suffix.lower() not in STACK_SUFFIXES:
        return 1
    try:
        return page_count(path)
    except PictureError:
        return 1


def classes_of(root: Path, layout: Layout) -> tuple[Classes, LabelEncoding]:
    """The classes of a data set, and how its labels tell them. DataError if nothing says so."""
    classes = declared_classes(root)
    if classes is None and layout.name == "PASCAL VOC":
        colors = {voc_color(index): index for index in range(len(VOC_CLASSES))}
        colors[VOC_BORDER] = IGNORE_INDEX
        return Classes(list(VOC_CLASSES)), LabelEncoding(len(VOC_CLASSES), colors=colors)
    binary = (classes is None or (len(classes.names) == 2 and classes.colors is None)) and (
        _has_binary_labels(root)
    )
    if classes is None and not binary:
        raise DataError(
            f"{root} has no classes.txt, a class name a line in the order of the ids (for labels "
            "of colours `name r g b`)"
        )
    classes = classes or Classes(list(BINARY_CLASSES))
    count = len(classes.names)
    void_ids = (count, IGNORE_INDEX) if layout.void_after_classes else (IGNORE_INDEX,)
    declared = classes.colors is not None
    return classes, LabelEncoding(count, void_ids, classes.colors, declared, binary)


def _has_binary_labels(root: Path) -> bool:
    """Judged by the first split that there is, so that all splits are read alike."""
    for split in SPLITS:
        if has_split(root, split):
            samples, _ = samples_of(layout_of(root, split))
            return are_binary((sample.label, sample.page) for sample in samples)
    return False


def declared_classes(root: Path) -> Classes | None:
    """From classes.txt (`name` or `name r g b` a line) and label_colors.txt (`r g b name`)."""
    names_file, colors_file = root / "classes.txt", root / "label_colors.txt"
    colored: list[tuple[str, Color]] = []
    if colors_file.is_file():
        colored = [_color_first(line, colors_file) for line in lines_of(colors_file)]
    if not names_file.is_file():
        if not colored:
            return None
        return _classes([name for name, _ in colored], dict(colored), colors_file)
    lines = lines_of(names_file)
    split_lines = [_color_last(line) for line in lines]
    found = [entry for entry in split_lines if entry is not None]
    if found and len(found) == len(lines):
        return _classes([name for name, _ in found], dict(found), names_file)
    if found and len(found) > len(lines) // 2:
        odd = next(line for line, entry in zip(lines, split_lines, strict=True) if entry is None)
        raise DataError(
            f"{names_file} has {odd!r} among lines of `name r g b`; it lacks its colour"
        )
    return _classes(lines, dict(colored) or None, names_file)


def _classes(names: Sequence[str], colors: dict[str, Color] | None, path: Path) -> Classes:
    if colors is not None:
        names = [name for name in names if name.lower() not in VOID_NAMES]
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise DataError(f"{path} has {len(names)} class names; expected 1 to {IGNORE_INDEX}")
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"{path} has {', '.join(twice)} twice; class names must differ")
    if colors is None:
        return Classes(list(names))
    lacking = [name for name in names if name not in colors]
    if lacking:
        raise DataError(f"label_colors.txt has no colour for {', '.join(lacking)} of classes.txt")
    of_colors: dict[Color, int] = {}
    for name, color in colors.items():
        if color in of_colors:
            raise DataError(f"{path} gives the colour {color} twice; each class needs its own")
        of_colors[color] = names.index(name) if name in names else IGNORE_INDEX
    return Classes(list(names), of_colors)


def _color_first(line: str, path: Path) -> tuple[str, Color]:
    words = line.replace(",", " ").split(maxsplit=3)
    color = _color(words[:3])
    if len(words) != 4 or color is None:
        raise DataError(f"{path} has the line {line!r}; expected `r g b name`, each of 0 to 255")
    return words[3].strip(), color


def _color_last(line: str) -> tuple[str, Color] | None:
    words = line.replace(",", " ").rsplit(maxsplit=3)
    color = _color(words[1:])
    return (words[0].strip(), color) if len(words) == 4 and color is not None else None


def _color(words: Sequence[str]) -> Color | None:
    if len(words) != 3 or not all(word.isdecimal() and int(word) <= 255 for word in words):
        return None
    return int(words[0]), int(words[1]), int(words[2])


def lines_of(path: Path) -> list[str]:
    """The lines that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _by_stem(folder: Path, mistakes: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.stem in files:
            mistakes.append(
                f"{folder} has {files[path.stem].name} and {path.name}: one of them must go, since "
                "picture and label are matched by their stems"
            )
        files[path.stem] = path
    return files


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
