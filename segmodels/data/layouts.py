"""Where the files of a dataset lie, recognised by what its folder holds; see `dataset.py`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from segmodels.data._untrusted_images import shortened
from segmodels.data.classes import Classes, declared_classes, lines_of
from segmodels.data.image_io import PictureError, heif_hint, list_images, page_count
from segmodels.data.labels import IGNORE_INDEX, DataError, LabelEncoding, are_binary, are_instances
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
CELL_CLASSES = ("background", "cell")  # of instances
IMAGE_FOLDERS = "a folder for each image"  # name of the 2018 Data Science Bowl's layout
STACK_SUFFIXES = (".tif", ".tiff")
LABEL_ENDS = ("_L", "_mask", "_label")  # that a label's stem may have after its image's


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
    """Where one split's files lie. stems: of its images; None: all that the folders hold."""

    name: str
    images: Path
    labels: Path
    stems: list[str] | None
    void_after_classes: bool = False


def layout_of(root: Path, split: str) -> Layout:
    """DataError if the folder has no such split."""
    if not _is_folder(root):
        raise DataError(f"there is no folder {shortened(root)}")
    if (root / f"{split}annot").is_dir():
        return Layout("SegNet's CamVid", root / split, root / f"{split}annot", None, True)
    if (root / LISTS / f"{split}.txt").is_file():
        images, labels = root / "JPEGImages", root / "SegmentationClass"
        return Layout("PASCAL VOC", images, labels, lines_of(root / LISTS / f"{split}.txt"))
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
    if split in WITHOUT_LISTS and _has_image_folders(root):
        return Layout(IMAGE_FOLDERS, root, root, None)
    raise DataError(
        f"{root} has no split {split!r}: expected {split}/ with {split}annot/, or images/ with "
        f"labels/ or masks/ and perhaps {split}.txt, or PASCAL VOC's {LISTS}/{split}.txt; it holds "
        f"{_listing(root)}"
    )


def has_split(folder: str | Path, split: str) -> bool:
    """Whether anything of the split is there; `open_data` then says what it lacks."""
    root = Path(folder)
    if not _is_folder(root):
        return False
    names = (split, f"{split}annot", f"{split}.txt", f"{LISTS}/{split}.txt")
    if any((root / name).exists() for name in names):
        return True
    return split in WITHOUT_LISTS and (_is_without_lists(root) or _has_image_folders(root))


def _is_without_lists(root: Path) -> bool:
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return False
    return (root / "images").is_dir() and _labels_folder(root).is_dir()


def _has_image_folders(root: Path) -> bool:
    first = next(iter(_folders_in(root)), root)
    return (first / "images").is_dir() and (first / "masks").is_dir()


def _labels_folder(root: Path) -> Path:
    """labels/, or masks/ where there is no labels/."""
    masks = root / "masks"
    return masks if masks.is_dir() and not (root / "labels").is_dir() else root / "labels"


def samples_of(layout: Layout) -> tuple[list[Sample], list[str]]:
    """The split's images with their labels, and what is wrong with the others."""
    errors: list[str] = []
    images, labels = _files_of(layout, errors)
    for stem in [stem for stem in labels if stem not in images]:
        owner = next((stem.removesuffix(end) for end in LABEL_ENDS if stem.endswith(end)), None)
        if owner in images and owner not in labels:
            labels[owner] = labels.pop(stem)
    if layout.stems is None:
        stems = sorted(images.keys() | labels.keys())
    else:
        stems = _listed(layout.stems, images, layout.images, errors)
    for stem, times in Counter(stems).items():
        if times > 1:
            errors.append(f"{stem} is listed {times} times; it must be listed once")
    for kind, folder, files in (
        ("image", layout.images, images),
        ("label", layout.labels, labels),
    ):
        errors += _missing(kind, folder, [stem for stem in stems if stem not in files])
    whole = [stem for stem in dict.fromkeys(stems) if stem in images and stem in labels]
    samples = [sample for stem in whole for sample in _pages(images[stem], labels[stem], errors)]
    return samples, errors


def _files_of(layout: Layout, errors: list[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images and the labels by their stems."""
    if layout.name != IMAGE_FOLDERS:
        images = _by_stem(layout.images, errors)
        labels = _by_stem(layout.labels, errors)
        masks = {normalize("NFC", path.name): path for path in _folders_in(layout.labels)}
        return images, {stem: masks[stem] for stem in masks if stem in images} | labels
    folders = {normalize("NFC", path.name): path for path in _folders_in(layout.images)}
    images = {}
    for stem, folder in folders.items():
        found = list_images(folder / "images").images if (folder / "images").is_dir() else []
        if len(found) == 1:
            images[stem] = found[0]
        else:
            errors.append(f"{folder / 'images'} has {len(found)} images; expected one")
    labels = {s: folder / "masks" for s, folder in folders.items() if (folder / "masks").is_dir()}
    return images, labels


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _pages(picture: Path, label: Path, errors: list[str]) -> list[Sample]:
    """A sample for each page of a stack, one for any other file."""
    pages, of_label = _page_count(picture), _page_count(label)
    if pages != of_label:
        errors.append(
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
    """The classes of a dataset, and how its labels tell them. DataError if nothing says so."""
    classes = declared_classes(root)
    if classes is None and layout.name == "PASCAL VOC":
        colors = {voc_color(index): index for index in range(len(VOC_CLASSES))}
        colors[VOC_BORDER] = IGNORE_INDEX
        return Classes(list(VOC_CLASSES)), LabelEncoding(len(VOC_CLASSES), colors=colors)
    two_or_none = classes is None or (len(classes.names) == 2 and classes.colors is None)
    labels = _first_labels(root) if two_or_none else []
    void_ids = (2, IGNORE_INDEX) if layout.void_after_classes else (IGNORE_INDEX,)
    instances = are_instances(labels, void_ids)
    binary = not instances and are_binary(labels)
    if classes is None and not (binary or instances):
        raise DataError(
            f"{root} has no classes.txt, a class name a line in the order of the ids (for labels "
            "of colors `name r g b`)"
        )
    classes = classes or Classes(list(CELL_CLASSES if instances else BINARY_CLASSES))
    count = len(classes.names)
    void_ids = (count, IGNORE_INDEX) if layout.void_after_classes else (IGNORE_INDEX,)
    declared = classes.colors is not None
    return classes, LabelEncoding(count, void_ids, classes.colors, declared, binary, instances)


def _first_labels(root: Path) -> list[tuple[Path, int]]:
    """Label and page of each sample of the first split that there is, so that all splits are read
    alike."""
    for split in SPLITS:
        if has_split(root, split):
            samples, _ = samples_of(layout_of(root, split))
            return [(sample.label, sample.page) for sample in samples]
    return []


def notes_of(layout: Layout) -> list[str]:
    """A sentence for each folder on files that are no images, or in formats that are not read."""
    if layout.name == IMAGE_FOLDERS:
        return []
    folders = dict.fromkeys((layout.images, layout.labels))
    return [note for folder in folders for note in list_images(folder).notes(folder)]


def _listed(
    lines: list[str], images: dict[str, Path], folder: Path, errors: list[str]
) -> list[str]:
    """The stems that a list's lines name."""
    stems = []
    for line in lines:
        stem = _listed_stem(normalize("NFC", line), images)
        if stem is None:
            errors.append(
                f"the list has the line {shortened(line)!r}, whose label has another name than its "
                "image; they must have the same stem"
            )
        else:
            stems.append(stem)
    if stems and not any(stem in images for stem in stems):
        raise DataError(
            f"no line of the list names an image in {folder}: it has {shortened(lines[0])!r}; "
            "expected a line for each image, its stem (0001), its file (0001.png) or its file and "
            "its label's (images/0001.png labels/0001.png)"
        )
    return stems


def _listed_stem(line: str, images: dict[str, Path]) -> str | None:
    """What `stem`, `folder/stem.png` or `folder/stem.jpg folder/stem.png` names; the line itself if
    it names no image, None if it pairs two names."""
    if line in images:
        return line
    words = line.replace("\\", "/").split()
    stems = [PurePosixPath(word).stem for word in words]
    if len(words) == 2 and stems[0] in images:
        is_pair = stems[1] in (stems[0], *(stems[0] + end for end in LABEL_ENDS))
        return stems[0] if is_pair else None
    stem = PurePosixPath(line.replace("\\", "/")).stem  # which may have spaces
    return stem if stem in images else line


def _by_stem(folder: Path, errors: list[str]) -> dict[str, Path]:
    """The images of a folder. Stems are compared in Unicode's normal form NFC."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files: dict[str, Path] = {}
    for path in list_images(folder).images:
        stem = normalize("NFC", path.stem)
        if stem in files:
            errors.append(
                f"{folder} has {files[stem].name} and {path.name}: one of them must go, since "
                "image and label are matched by their stems"
            )
        files[stem] = path
    return files


def _missing(kind: str, folder: Path, stems: list[str]) -> list[str]:
    """A sentence for each stem without a file, naming one of its name that is not read."""
    if not stems:
        return []
    unread = {normalize("NFC", path.stem): path for path in list_images(folder).unread}
    return [
        f"{stem} has no {kind} in {folder}"
        + (
            f"; {unread[stem].name} is in a format that is not read"
            f"{heif_hint([unread[stem].suffix])}"
            if stem in unread
            else ""
        )
        for stem in stems
    ]


def _is_folder(path: Path) -> bool:
    """Whether there is such a folder; no, too, for a path that the system does not take."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
