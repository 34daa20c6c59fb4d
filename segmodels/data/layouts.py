"""Detection of a dataset's layout and of its classes, see `segmodels.data.dataset`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from segmodels.data._untrusted_images import shortened
from segmodels.data.classes import Classes, declared_classes, read_lines
from segmodels.data.image_folder import heif_hint, list_images
from segmodels.data.image_io import PictureError, page_count
from segmodels.data.labels import IGNORE_INDEX, DataError, LabelEncoding, are_binary, are_instances
from segmodels.utils.formatting import count_of
from segmodels.utils.palette import voc_color

SPLITS = ("train", "val", "test")
SPLITS_WITHOUT_LISTS = ("train", "all")  # each contains all images, if there are no lists
VOC_LISTS = "ImageSets/Segmentation"
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
VOC_BORDER = (224, 224, 192)  # void, around objects
BINARY_CLASSES = ("background", "foreground")
CELL_CLASSES = ("background", "cell")  # for instances
IMAGE_FOLDERS = "one folder per image"  # layout of the 2018 Data Science Bowl
STACK_SUFFIXES = (".tif", ".tiff")
LABEL_STEM_ENDINGS = ("_L", "_mask", "_label")  # that may follow the stem of the image


@dataclass(frozen=True)
class Sample:
    """An image and its label.

    Attributes:
        image: Image file.
        label: Label file, or folder with one mask per cell.
        page: Page in both files, if they are TIFF stacks; counted from 0.
        pages: Number of pages in each file.
    """

    image: Path
    label: Path
    page: int = 0
    pages: int = 1

    @property
    def name(self) -> str:
        """Name of the image file; for stacks with the page: "stack.tif[3]"."""
        return self.image.name + (f"[{self.page}]" if self.pages > 1 else "")

    @property
    def files(self) -> tuple[Path, ...]:
        """Image and label file; none for further pages of a stack, so that each is listed once."""
        return (self.image, self.label) if self.page == 0 else ()

    @property
    def key(self) -> str:
        """Identifier within the dataset: the name with that of its folder."""
        return f"{self.image.parent.name}/{self.name}"


@dataclass(frozen=True)
class Layout:
    """Location of the files of one split.

    Attributes:
        name: Name of the layout, for messages.
        images: Folder of the images.
        labels: Folder of the labels.
        stems: Lines of the split's list; None: all files in the folders.
        void_after_classes: The id after the last class is void.
    """

    name: str
    images: Path
    labels: Path
    stems: list[str] | None
    void_after_classes: bool = False


def layout_of(root: Path, split: str) -> Layout:
    """Detect the layout of a split.

    Raises:
        DataError: If the folder does not exist or has no such split.
    """
    if not _is_folder(root):
        raise DataError(f"there is no folder {shortened(root)}")
    if (root / f"{split}annot").is_dir():
        return Layout("SegNet's CamVid", root / split, root / f"{split}annot", None, True)
    if (root / VOC_LISTS / f"{split}.txt").is_file():
        images, labels = root / "JPEGImages", root / "SegmentationClass"
        return Layout("PASCAL VOC", images, labels, read_lines(root / VOC_LISTS / f"{split}.txt"))
    if (root / f"{split}.txt").is_file():
        stems = read_lines(root / f"{split}.txt")
        return Layout("lists of stems", root / "images", _labels_folder(root), stems)
    if _has_no_lists(root):
        if split in SPLITS_WITHOUT_LISTS:
            return Layout("images without lists", root / "images", _labels_folder(root), None)
        raise DataError(
            f"{root} has no split {split!r}: without lists such as train.txt, all images are "
            "'train'; use --val-fraction or --folds to hold out images for 'val'"
        )
    if split in SPLITS_WITHOUT_LISTS and _has_image_folders(root):
        return Layout(IMAGE_FOLDERS, root, root, None)
    raise DataError(
        f"{root} has no split {split!r}: expected {split}/ and {split}annot/, or images/ and "
        f"labels/ or masks/ (optionally with {split}.txt), or PASCAL VOC's "
        f"{VOC_LISTS}/{split}.txt; found {_list_contents(root)}"
    )


def has_split(folder: str | Path, split: str) -> bool:
    """Whether a split exists, possibly incompletely; `open_data` reports what is missing."""
    root = Path(folder)
    if not _is_folder(root):
        return False
    names = (split, f"{split}annot", f"{split}.txt", f"{VOC_LISTS}/{split}.txt")
    if any((root / name).exists() for name in names):
        return True
    return split in SPLITS_WITHOUT_LISTS and (_has_no_lists(root) or _has_image_folders(root))


def _has_no_lists(root: Path) -> bool:
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return False
    return (root / "images").is_dir() and _labels_folder(root).is_dir()


def _has_image_folders(root: Path) -> bool:
    first = next(iter(_folders_in(root)), root)
    return (first / "images").is_dir() and (first / "masks").is_dir()


def _labels_folder(root: Path) -> Path:
    """labels/, or masks/ if only that exists."""
    masks = root / "masks"
    return masks if masks.is_dir() and not (root / "labels").is_dir() else root / "labels"


def samples_of(layout: Layout) -> tuple[list[Sample], list[str]]:
    """Match the images of a split with their labels.

    Returns:
        The samples, and an error for each image or label that cannot be matched.

    Raises:
        DataError: If a folder is missing, or the list does not match any image.
    """
    errors: list[str] = []
    images, labels = _files_of(layout, errors)
    for stem in [stem for stem in labels if stem not in images]:
        image_stem = next(
            (stem.removesuffix(end) for end in LABEL_STEM_ENDINGS if stem.endswith(end)), None
        )
        if image_stem in images and image_stem not in labels:
            labels[image_stem] = labels.pop(stem)
    if layout.stems is None:
        stems = sorted(images.keys() | labels.keys())
    else:
        stems = _listed_stems(layout.stems, images, layout.images, errors)
    for stem, times in Counter(stems).items():
        if times > 1:
            errors.append(f"{stem} is listed {times} times; list it once")
    for kind, folder, files in (
        ("image", layout.images, images),
        ("label", layout.labels, labels),
    ):
        errors += _missing(kind, folder, [stem for stem in stems if stem not in files])
    complete = [stem for stem in dict.fromkeys(stems) if stem in images and stem in labels]
    samples = [sample for stem in complete for sample in _pages(images[stem], labels[stem], errors)]
    return samples, errors


def _files_of(layout: Layout, errors: list[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and labels by stem."""
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
            errors.append(f"{folder / 'images'} contains {len(found)} images; expected one")
    labels = {s: folder / "masks" for s, folder in folders.items() if (folder / "masks").is_dir()}
    return images, labels


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _pages(image: Path, label: Path, errors: list[str]) -> list[Sample]:
    """Create a sample for each page of a stack, and one for any other file."""
    pages, label_pages = _page_count(image), _page_count(label)
    if pages != label_pages:
        errors.append(
            f"{image} has {count_of(pages, 'page')}, but its label {label} has {label_pages}; "
            "expected the same number of pages"
        )
        return []
    return [Sample(image, label, page, pages) for page in range(pages)]


def _page_count(path: Path) -> int:
    """Number of pages; 1 for unreadable files, for which reading the page reports the error."""
    if path.suffix.lower() not in STACK_SUFFIXES:
        return 1
    try:
        return page_count(path)
    except PictureError:
        return 1


def classes_of(root: Path, layout: Layout) -> tuple[Classes, LabelEncoding]:
    """Determine the classes of a dataset and the encoding of its labels.

    Raises:
        DataError: If the classes are neither declared nor implied by the layout or the labels.
    """
    classes = declared_classes(root)
    if classes is None and layout.name == "PASCAL VOC":
        colors = {voc_color(index): index for index in range(len(VOC_CLASSES))}
        colors[VOC_BORDER] = IGNORE_INDEX
        return Classes(list(VOC_CLASSES)), LabelEncoding(len(VOC_CLASSES), colors=colors)
    may_be_binary = classes is None or (len(classes.names) == 2 and classes.colors is None)
    labels = _first_labels(root) if may_be_binary else []
    void_ids = (2, IGNORE_INDEX) if layout.void_after_classes else (IGNORE_INDEX,)
    instances = are_instances(labels, void_ids)
    binary = not instances and are_binary(labels)
    if classes is None and not (binary or instances):
        raise DataError(
            f"{root} has no classes.txt; list the class names in it, one per line, in the order of "
            "the class ids (for colour labels: `name r g b`)"
        )
    classes = classes or Classes(list(CELL_CLASSES if instances else BINARY_CLASSES))
    count = len(classes.names)
    void_ids = (count, IGNORE_INDEX) if layout.void_after_classes else (IGNORE_INDEX,)
    by_palette = classes.colors is not None
    return classes, LabelEncoding(count, void_ids, classes.colors, by_palette, binary, instances)


def _first_labels(root: Path) -> list[tuple[Path, int]]:
    """Labels and pages of the first existing split, which determine the encoding of all splits."""
    for split in SPLITS:
        if has_split(root, split):
            samples, _ = samples_of(layout_of(root, split))
            return [(sample.label, sample.page) for sample in samples]
    return []


def notes_of(layout: Layout) -> list[str]:
    """Describe the ignored and the unsupported files in the folders of a split."""
    if layout.name == IMAGE_FOLDERS:
        return []
    folders = dict.fromkeys((layout.images, layout.labels))
    return [note for folder in folders for note in list_images(folder).notes(folder)]


def _listed_stems(
    lines: list[str], images: dict[str, Path], folder: Path, errors: list[str]
) -> list[str]:
    """Parse the lines of a list into stems."""
    stems = []
    for line in lines:
        stem = _listed_stem(normalize("NFC", line), images)
        if stem is None:
            errors.append(
                f"the list has the line {shortened(line)!r}, in which the stems of image and label "
                "differ; they must be equal"
            )
        else:
            stems.append(stem)
    if stems and not any(stem in images for stem in stems):
        raise DataError(
            f"the list does not match any image in {folder}: its first line is "
            f"{shortened(lines[0])!r}; expected a stem (0001), a file name (0001.png) or an image "
            "and its label (images/0001.png labels/0001.png) per line"
        )
    return stems


def _listed_stem(line: str, images: dict[str, Path]) -> str | None:
    """Parse a line: `stem`, `folder/stem.png` or `folder/stem.jpg folder/stem.png`.

    Returns:
        The stem; the line itself if it does not match an image; None if the two stems of a pair
        differ.
    """
    if line in images:
        return line
    words = line.replace("\\", "/").split()
    stems = [PurePosixPath(word).stem for word in words]
    if len(words) == 2 and stems[0] in images:
        is_pair = stems[1] in (stems[0], *(stems[0] + end for end in LABEL_STEM_ENDINGS))
        return stems[0] if is_pair else None
    stem = PurePosixPath(line.replace("\\", "/")).stem  # may contain spaces
    return stem if stem in images else line


def _by_stem(folder: Path, errors: list[str]) -> dict[str, Path]:
    """Images of a folder by stem, in Unicode normal form NFC."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files: dict[str, Path] = {}
    for path in list_images(folder).images:
        stem = normalize("NFC", path.stem)
        if stem in files:
            errors.append(
                f"{folder} contains both {files[stem].name} and {path.name}; remove one of them, "
                "since images and labels are matched by stem"
            )
        files[stem] = path
    return files


def _missing(kind: str, folder: Path, stems: list[str]) -> list[str]:
    """Describe stems without a file; mentions files with that stem in unsupported formats."""
    if not stems:
        return []
    unsupported = {normalize("NFC", path.stem): path for path in list_images(folder).unsupported}
    return [
        f"{stem} has no {kind} in {folder}"
        + (
            f"; {unsupported[stem].name} is in an unsupported format"
            f"{heif_hint([unsupported[stem].suffix])}"
            if stem in unsupported
            else ""
        )
        for stem in stems
    ]


def _is_folder(path: Path) -> bool:
    """Whether a folder exists; False for paths that the operating system rejects."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _list_contents(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
