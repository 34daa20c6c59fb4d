"""Label images: class ids, colors or 0/255 masks -> class ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _tiff, camvid
from segmodels.data._untrusted_images import is_lossless_webp, open_regular, opened
from segmodels.data.image_io import (
    MAX_PIXELS,
    NPY,
    PictureError,
    exif_orientation,
    list_images,
    load_npy,
    seek_page,
    turned,
)

IGNORE_INDEX = 255
Color = camvid.Color
Kind = Literal["1-bit", "grey", "palette", "colors"]

FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
LOSSY = ("JPEG", "JPEG2000", "AVIF")  # opened only to say why they are refused
ACCEPTED = "PNG, TIFF, BMP, GIF, PPM, lossless WebP or .npy"
EXPECTED_PIXELS = "expected class ids, grey or palette, or colors, 8-bit RGB"
DEEP_COLORS = ("RGB;16B", "RGBA;16B", "LA;16B")  # of PNG, of which Pillow drops the low bytes
MANY_IDS = 16  # unknown ones, from which on they are taken for interpolation or compression


class DataError(ValueError):
    """A dataset that cannot be used: which file, what it holds and what was expected."""


class SizeError(DataError):
    """A label of another size than its image."""


@dataclass(frozen=True)
class LabelImage:
    """The pixels of a label file, as they are stored.

    Attributes:
        pixels: (H, W) integers, of a palette image its indices; or (H, W, 3) uint8 colors. Grey
            PNGs of 2 and 4 bits keep their values (0 to 3, 0 to 15). Turned as EXIF says.
        kind: How they are stored.
        palette: (N, 3) uint8 colors of the indices, for a palette image.
        orientation: EXIF's, 1 to 8, which has been applied.
    """

    pixels: NDArray
    kind: Kind
    palette: NDArray[np.uint8] | None = None
    orientation: int = 1

    @cached_property
    def values(self) -> NDArray | None:
        """(H, W) integers: the pixels, or their common value where all colors are grey; else
        None."""
        if self.pixels.ndim == 2:
            return self.pixels
        grey = self.pixels[..., 0]
        return grey if (self.pixels == grey[..., None]).all() else None

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """(H, W, 3), also of a palette image; None for an image of values."""
        if self.palette is not None:
            return self.palette[self.pixels]
        return self.pixels if self.kind == "colors" else None

    @cached_property
    def counts(self) -> dict[int, int]:
        """{value: number of pixels}; empty for an image of colors."""
        if self.values is None:
            return {}
        if self.values.dtype == np.uint8:
            counts = np.bincount(self.values.ravel(), minlength=256)
            return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        values, counts = np.unique(self.values, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class LabelEncoding:
    """What the pixels of label images stand for.

    Attributes:
        num_classes: Ids are 0 to num_classes - 1.
        void_ids: Values that stand for no class.
        colors: The id, or 255 for void, that each (r, g, b) stands for; None: none is declared.
        by_palette: Palette images are read by the colors of their palette, not as ids.
        binary: 255 (in 1-bit images 1) is the second of two classes, and there is no void.
        instances: Values are numbers of cells, 0 is the first of two classes, every other number
            the second; there is no void.
    """

    num_classes: int
    void_ids: tuple[int, ...] = (IGNORE_INDEX,)
    colors: Mapping[Color, int] | None = None
    by_palette: bool = False
    binary: bool = False
    instances: bool = False

    def describe(self) -> str:
        """The encoding in a few words."""
        if self.instances:
            return "instances, numbered cells"
        if self.binary:
            return "0/255 masks"
        return "class ids" if self.colors is None else "colors or class ids"

    def read(self, path: Path, page: int = 0) -> NDArray[np.uint8]:
        """Read the class ids of a label file.

        Args:
            path: The file.
            page: Of a TIFF stack, counted from 0.

        Returns:
            (H, W), void as 255.

        Raises:
            DataError: For a file, a value or a color that cannot be used.
        """
        return self.ids(load_label(path, page=page), path)

    def cells(self, path: Path, page: int = 0) -> NDArray[np.int32] | None:
        """Read the cells of a label file.

        Args:
            path: The file.
            page: Of a TIFF stack, counted from 0.

        Returns:
            (H, W) numbers, 0 outside cells; None if the labels are no instances, or there is but
            one number, as in a mask.

        Raises:
            DataError: For a file that cannot be used.
        """
        if not self.instances:
            return None
        label = load_label(path, page=page)
        if label.values is None or len(label.counts.keys() - {0}) < 2:
            return None
        return label.values.astype(np.int32)

    def ids(self, label: LabelImage, path: Path) -> NDArray[np.uint8]:
        """`read` of a label that is loaded. path: for messages."""
        values = label.values
        if self.instances and values is not None:
            return (values != 0).astype(np.uint8)
        if values is None or (self.by_palette and label.colors is not None):
            assert label.colors is not None
            return self._ids_of_colors(label.colors, path)
        if self.binary:
            foreground = values == (1 if label.kind == "1-bit" else 255)
            _check_values(path, values, (values != 0) & ~foreground, "0 and 255 alone")
            return foreground.astype(np.uint8)
        is_void = np.isin(values, (*self.void_ids, IGNORE_INDEX))
        expected = (
            f"0 to {self.num_classes - 1} (the {self.num_classes} lines of classes.txt) or "
            f"{IGNORE_INDEX} for void"
        )
        unknown = ((values < 0) | (values >= self.num_classes)) & ~is_void
        _check_values(path, values, unknown, expected)
        return np.where(is_void, IGNORE_INDEX, values).astype(np.uint8)

    def _ids_of_colors(self, pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        if self.colors is None:
            raise DataError(
                f"{path} is an image of colors, and no colors are declared: write the lines of "
                "classes.txt as `name r g b`, or save class ids, 8-bit grey or palette"
            )
        codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        known = {r << 16 | g << 8 | b: class_id for (r, g, b), class_id in self.colors.items()}
        table = np.array(sorted(known), np.int32)
        places = np.searchsorted(table, codes).clip(max=len(table) - 1)
        unknown = table[places] != codes
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            raise DataError(
                f"{path} has the color {tuple(pixels[y, x].tolist())} at x = {x}, y = {y} "
                f"({unknown.sum()} pixels of undeclared colors in all); declare it in classes.txt "
                f"or label_colors.txt, as `void` if it stands for no class"
            )
        return np.array([known[code] for code in table.tolist()], np.uint8)[places]


def are_binary(labels: Iterable[tuple[Path, int]]) -> bool:
    """Whether label images hold 0 and 255 alone, and both; the 1 of 1-bit images counts as 255.

    Args:
        labels: Files, and the page of each. Files that cannot be read are left out.
    """
    seen: set[int] = set()
    for path, page in labels:
        try:
            label = load_label(path, page=page)
        except DataError:
            continue
        seen |= {255 * value if label.kind == "1-bit" else value for value in label.counts}
        if label.values is None or not seen <= {0, 255}:
            return False
    return seen == {0, 255}


def are_instances(labels: Iterable[tuple[Path, int]], void_ids: Sequence[int]) -> bool:
    """Whether the label images of two classes hold numbered cells: folders of one mask a cell, or
    images of 16 and more bits with other values than 0, 1 and void.

    Args:
        labels: Files or folders, and the page of each. Those that cannot be read are left out.
        void_ids: Values that stand for no class.
    """
    for path, page in labels:
        if path.is_dir():
            return True
        try:
            label = load_label(path, page=page)
        except DataError:
            continue
        if label.values is None or label.values.dtype.itemsize == 1:
            return False
        if not label.counts.keys() <= {0, 1, *void_ids}:
            return True
    return False


# ---- a label beside a network, without a dataset ----


def read_label(
    path: str | Path,
    size: tuple[int, int],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> NDArray[np.uint8]:
    """Read the label image of one image.

    Args:
        path: An image of ids, of the palette's colors with black for void, or in one of the
            encodings of the dataset that the classes are those of.
        size: (H, W) of the image that it belongs to.
        class_names: What the ids stand for.
        palette: [r, g, b] of each class.

    Returns:
        (H, W) uint8, void as 255.

    Raises:
        PictureError: What is wrong with the file, naming no folder.
    """
    path = Path(path)
    try:
        return label_encoding(class_names, palette).ids(load_label(path, size=size), path)
    except DataError as error:
        sentence = str(error).replace(str(path), path.name)
        if isinstance(error, SizeError):
            raise PictureError(sentence) from error
        problem = sentence.split("; ")[0]
        raise PictureError(
            f"{problem}; expected class ids from 0 to {len(class_names) - 1} in {ACCEPTED}, with "
            "255 for unlabelled, or the classes' colors with black for unlabelled"
        ) from error


def label_encoding(class_names: Sequence[str], palette: Sequence[Sequence[int]]) -> LabelEncoding:
    """What the pixels of label images for these classes may stand for: ids, the palette's colors,
    and for CamVid's 11 classes, in whatever order, the encodings that CamVid is published in."""
    colors = {(int(r), int(g), int(b)): number for number, (r, g, b) in enumerate(palette)}
    black = {(0, 0, 0): IGNORE_INDEX}
    names = [name.lower() for name in class_names]
    if sorted(names) != sorted(camvid.CLASS_NAMES):
        return LabelEncoding(len(names), colors=black | colors)
    published = {
        color: names.index(name)
        for color, name in (camvid.OFFICIAL_COLORS | camvid.SEGNET_COLORS).items()
    }
    void_ids = (camvid.VOID_ID, IGNORE_INDEX)
    return LabelEncoding(len(names), void_ids, black | published | colors)


# ---- reading ----


def load_label(path: Path, *, page: int = 0, size: tuple[int, int] | None = None) -> LabelImage:
    """Read a label file without interpreting it.

    Args:
        path: A regular file in a lossless format, whatever its suffix; .npy by its suffix. Or a
            folder of masks, one a cell: their pixels get the numbers 1, 2, ... in the order of the
            files' names.
        page: Of a TIFF stack, counted from 0.
        size: (H, W) that the label must have.

    Raises:
        DataError: If it cannot be read, may have lost its ids to compression, or has another size.
    """
    try:
        if path.is_dir():
            return _label_of_masks(path)
        if path.suffix.lower() == NPY:
            return _label_of_array(load_npy(path, MAX_PIXELS))
        with opened(path, MAX_PIXELS, (*FORMATS, *LOSSY), ACCEPTED) as image:
            _check_lossless(image, path)
            seek_page(image, page, path.name)
            if size is not None and sorted(image.size) != sorted(size):  # turned by EXIF or not
                _check_size(path, image.size[::-1], size)
            label = _label_of(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise DataError(f"{path} cannot be read as a label: {error}") from error
    if size is not None:
        _check_size(path, label.pixels.shape[:2], size)
    return label


def _check_lossless(image: Image.Image, path: Path) -> None:
    kind = image.format
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(_tiff.COMPRESSION, 1) not in _tiff.LOSSY:
            return
        kind = "TIFF with lossy compression"
    elif kind == "WEBP":
        with open_regular(path) as file:
            if is_lossless_webp(file):
                return
        kind = "WebP with lossy compression"
    elif kind in FORMATS:
        return
    raise DataError(
        f"{path} is a label in {kind}, which changes ids and colors: save labels as PNG, from the "
        "program that made them, since converting this file does not bring the ids back"
    )


def _check_size(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> None:
    if found != size:
        raise SizeError(
            f"{path} is {found[1]} x {found[0]} pixels, the image {size[1]} x {size[0]}; they must "
            "be equal"
        )


def _label_of_array(array: NDArray) -> LabelImage:
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise ValueError(
            f"it has {array.dtype} of shape {array.shape}; expected integers of shape (H, W)"
        )
    return LabelImage(array, "grey")


def _label_of_masks(folder: Path) -> LabelImage:
    files = list_images(folder).images
    if not files:
        raise ValueError("it is a folder without masks; expected an image for each cell")
    cells: NDArray[np.int32] | None = None
    for number, path in enumerate(files, start=1):
        values = load_label(path).values
        if values is None:
            raise DataError(
                f"{path} is an image of colors; expected the mask of a cell, 0 elsewhere"
            )
        cells = np.zeros(values.shape, np.int32) if cells is None else cells
        if values.shape != cells.shape:
            _check_size(path, values.shape, (cells.shape[0], cells.shape[1]))
        cells[values != 0] = number
    assert cells is not None
    return LabelImage(cells, "grey")


def _label_of(image: Image.Image) -> LabelImage:
    if isinstance(image, TiffImageFile) and _tiff.needs_samples(image):
        return _label_of_samples(image)
    tiles = getattr(image, "tile", [])
    if tiles and tiles[0][3] in DEEP_COLORS:
        raise ValueError(f"it has 16 bits a color; {EXPECTED_PIXELS}")
    scale = _scale(image)
    declared = _tiff.orientation_of(image) if isinstance(image, TiffImageFile) else 1
    image.load()
    orientation = exif_orientation(image)  # 1 for a TIFF, which Pillow has turned by now

    def loaded(pixels: NDArray, kind: Kind, palette: NDArray | None = None) -> LabelImage:
        return LabelImage(turned(pixels, orientation), kind, palette, max(declared, orientation))

    mode = image.mode
    if mode == "1":
        return loaded(np.array(image, np.uint8), "1-bit")
    if mode == "P":
        table = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return loaded(np.array(image), "palette", np.pad(table, ((0, 256 - len(table)), (0, 0))))
    if mode == "L" or mode.startswith("I"):
        values = np.array(image)
        values = values.astype(values.dtype.newbyteorder("="))
        if scale != 1:
            values = (values / scale).round().astype(values.dtype)
        return loaded(values, "grey")
    if mode in ("RGB", "RGBA", "LA", "PA"):
        pixels = np.array(image.convert("RGBA"))
        _check_alpha(pixels)
        return loaded(pixels[..., :3], "colors")
    raise ValueError(f"it has mode {mode}; {EXPECTED_PIXELS}")


def _scale(image: Image.Image) -> float:
    """The factor by which Pillow multiplies the stored grey values to fill 8 or 16 bits."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return 1
    decoder, _, _, args = tiles[0]
    if image.format == "PPM" and decoder != "raw" and image.mode in ("L", "I"):
        return (255 if image.mode == "L" else 65535) / args[1]
    rawmode = str(args if isinstance(args, str) else args[0])
    return {"L;2": 85, "L;4": 17}.get(rawmode[:3], 1)


def _label_of_samples(image: TiffImageFile) -> LabelImage:
    """Of a TIFF that Pillow does not read, or not exactly."""
    photometric = image.tag_v2.get(_tiff.PHOTOMETRIC, 0)
    orientation = _tiff.orientation_of(image)
    samples = turned(_tiff.read_samples(image, MAX_PIXELS), orientation)
    channels, type_ = samples.shape[2], samples.dtype
    if photometric == _tiff.RGB and channels >= 3 and type_ == np.uint8:
        return LabelImage(samples[..., :3], "colors", orientation=orientation)
    if photometric == _tiff.PALETTE:
        palette = _tiff.palette_of(image)
        indices = samples[..., 0].clip(max=len(palette) - 1)
        return LabelImage(indices, "palette", palette, orientation)
    if channels > 1 or type_.kind == "f":
        raise ValueError(f"it has {channels} channels of {type_}; {EXPECTED_PIXELS}")
    return LabelImage(samples[..., 0], "grey", orientation=orientation)


def _check_alpha(pixels: NDArray[np.uint8]) -> None:
    """pixels: (H, W, 4). ValueError if alpha alone tells the objects."""
    if (pixels[..., :3] == pixels[0, 0, :3]).all() and (pixels[..., 3] != pixels[0, 0, 3]).any():
        raise ValueError(
            "its color is the same everywhere, the objects are in its alpha channel alone, which "
            "is not read: save that channel as an 8-bit grey image"
        )


def _check_values(path: Path, values: NDArray, unknown: NDArray[np.bool_], expected: str) -> None:
    if unknown.any():
        ids = np.unique(values[unknown]).tolist()
        some = str(ids) if len(ids) <= 10 else f"{str(ids[:10])[:-1]}, ...]"
        hint = ""
        if len(ids) >= MANY_IDS:
            hint = (
                "; so many are typical of labels that were smoothed, resized with interpolation "
                "or saved as JPEG"
            )
        raise DataError(f"{path} has ids {some}; expected {expected}{hint}")
