"""Reading of label images: class ids, colours, binary masks or instances."""

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
from segmodels.data._untrusted_images import is_lossless_webp, open_image, open_regular
from segmodels.data.image_folder import list_images
from segmodels.data.image_io import MAX_PIXELS, PictureError
from segmodels.data.multispectral import NPY, load_npy
from segmodels.data.orientation import apply_orientation, exif_orientation
from segmodels.data.stacks import seek_page
from segmodels.utils.formatting import count_of

IGNORE_INDEX = 255
Color = camvid.Color
Kind = Literal["1-bit", "grey", "palette", "colors"]

FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
LOSSY = ("JPEG", "JPEG2000", "AVIF")  # opened only to report why they are rejected
ACCEPTED = "PNG, TIFF, BMP, GIF, PPM, lossless WebP or .npy"
EXPECTED_PIXELS = "expected class ids (greyscale or palette) or colours (8-bit RGB)"
DEEP_COLORS = ("RGB;16B", "RGBA;16B", "LA;16B")  # PNGs whose low bytes Pillow drops
MANY_IDS = 16  # this many undeclared ids indicate interpolation or lossy compression


class DataError(ValueError):
    """A dataset cannot be used; the message names the file, its content and what was expected."""


class SizeError(DataError):
    """A label and its image have different sizes."""


@dataclass(frozen=True)
class LabelImage:
    """Pixels of a label file, not interpreted as class ids yet.

    Attributes:
        pixels: Upright pixels: (H, W) integers, which are indices for a palette image, or
            (H, W, 3) uint8 colours. Values are those stored, also for 2-bit and 4-bit greyscale.
        kind: Type of the stored pixels.
        palette: (N, 3) uint8 RGB colours of a palette image, or None.
        orientation: EXIF orientation, 1 to 8, which has been applied.
    """

    pixels: NDArray
    kind: Kind
    palette: NDArray[np.uint8] | None = None
    orientation: int = 1

    @cached_property
    def values(self) -> NDArray | None:
        """(H, W) integers: the pixels, or one channel if all colours are grey. None for other
        colour images."""
        if self.pixels.ndim == 2:
            return self.pixels
        grey = self.pixels[..., 0]
        return grey if (self.pixels == grey[..., None]).all() else None

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 colours, also of a palette image. None for greyscale images."""
        if self.palette is not None:
            return self.palette[self.pixels]
        return self.pixels if self.kind == "colors" else None

    @cached_property
    def counts(self) -> dict[int, int]:
        """{value: number of pixels}; empty for colour images."""
        if self.values is None:
            return {}
        if self.values.dtype == np.uint8:
            counts = np.bincount(self.values.ravel(), minlength=256)
            return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        values, counts = np.unique(self.values, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class LabelEncoding:
    """Mapping from the pixels of label images to class ids.

    Attributes:
        num_classes: Class ids are 0 to num_classes - 1.
        void_ids: Values of void pixels.
        colors: Class id for each (r, g, b), 255 for void; None if no colours are declared.
        by_palette: Palette images are read by colour instead of index.
        binary: 0 is the first of two classes, 255 (in 1-bit images 1) the second; there is no
            void.
        instances: Values are cell numbers: 0 is the first of two classes, all other values are the
            second; there is no void.
    """

    num_classes: int
    void_ids: tuple[int, ...] = (IGNORE_INDEX,)
    colors: Mapping[Color, int] | None = None
    by_palette: bool = False
    binary: bool = False
    instances: bool = False

    def describe(self) -> str:
        """Short description, for messages."""
        if self.instances:
            return "instances (numbered cells)"
        if self.binary:
            return "binary masks (0 and 255)"
        return "class ids" if self.colors is None else "colors or class ids"

    def read(self, path: Path, page: int = 0) -> NDArray[np.uint8]:
        """Read the class ids of a label file.

        Args:
            path: The file, or a folder of masks.
            page: Page of a TIFF stack, counted from 0.

        Returns:
            (H, W) uint8 class ids, 255 for void.

        Raises:
            DataError: If the file cannot be read, or contains an undeclared id or colour.
        """
        return self.ids(load_label(path, page=page), path)

    def cells(self, path: Path, page: int = 0) -> NDArray[np.int32] | None:
        """Read the cell numbers of a label file.

        Args:
            path: The file, or a folder of masks.
            page: Page of a TIFF stack, counted from 0.

        Returns:
            (H, W) cell numbers, 0 outside cells; None if the labels are not instances, or the file
            contains only one number, as a mask does.

        Raises:
            DataError: If the file cannot be read.
        """
        if not self.instances:
            return None
        label = load_label(path, page=page)
        if label.values is None or len(label.counts.keys() - {0}) < 2:
            return None
        return label.values.astype(np.int32)

    def ids(self, label: LabelImage, path: Path) -> NDArray[np.uint8]:
        """Class ids of a loaded label, see `read`; `path` is for messages."""
        values = label.values
        if self.instances and values is not None:
            return (values != 0).astype(np.uint8)
        if values is None or (self.by_palette and label.colors is not None):
            assert label.colors is not None
            return self._ids_of_colors(label.colors, path)
        if self.binary:
            foreground = values == (1 if label.kind == "1-bit" else 255)
            _check_values(path, values, (values != 0) & ~foreground, "only 0 and 255")
            return foreground.astype(np.uint8)
        is_void = np.isin(values, (*self.void_ids, IGNORE_INDEX))
        expected = (
            f"0 to {self.num_classes - 1} (the {self.num_classes} classes of classes.txt) or "
            f"{IGNORE_INDEX} for void"
        )
        unknown = ((values < 0) | (values >= self.num_classes)) & ~is_void
        _check_values(path, values, unknown, expected)
        return np.where(is_void, IGNORE_INDEX, values).astype(np.uint8)

    def _ids_of_colors(self, pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        if self.colors is None:
            raise DataError(
                f"{path} is a colour image, but no colours are declared; write the lines of "
                "classes.txt as `name r g b`, or save class ids as an 8-bit greyscale or palette "
                "image"
            )
        codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        code_ids = {r << 16 | g << 8 | b: class_id for (r, g, b), class_id in self.colors.items()}
        table = np.array(sorted(code_ids), np.int32)
        indices = np.searchsorted(table, codes).clip(max=len(table) - 1)
        unknown = table[indices] != codes
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            raise DataError(
                f"{path} has the undeclared colour {tuple(pixels[y, x].tolist())} at x = {x}, "
                f"y = {y} ({count_of(int(unknown.sum()), 'pixel')} with undeclared colours in "
                "total); declare it in classes.txt or label_colors.txt, as `void` if it is not a "
                "class"
            )
        return np.array([code_ids[code] for code in table.tolist()], np.uint8)[indices]


def are_binary(labels: Iterable[tuple[Path, int]]) -> bool:
    """Whether label images contain 0 and 255 and no other value; 1 in 1-bit images counts as 255.

    Args:
        labels: Files with their pages. Unreadable files are skipped.
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
    """Whether the labels of a dataset with two classes are instances.

    Instances are folders of one mask per cell, or images of 16 or more bits with other values than
    0, 1 and void.

    Args:
        labels: Files or folders with their pages. Unreadable ones are skipped.
        void_ids: Values of void pixels.
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


# ---- a single label, without a dataset ----


def read_label(
    path: str | Path,
    size: tuple[int, int],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> NDArray[np.uint8]:
    """Read the ground truth of a single image.

    Args:
        path: Label image of class ids, of the palette's colours with black for void or, for
            CamVid's classes, in CamVid's own encodings.
        size: (H, W) of the image.
        class_names: Class names, in the order of the class ids.
        palette: [r, g, b] of each class.

    Returns:
        (H, W) uint8 class ids, 255 for void.

    Raises:
        PictureError: If the label cannot be used. The message does not reveal its folder.
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
            f"{problem}; expected class ids from 0 to {len(class_names) - 1} (255 for unlabelled "
            f"pixels) or the classes' colours (black for unlabelled pixels), as {ACCEPTED}"
        ) from error


def label_encoding(class_names: Sequence[str], palette: Sequence[Sequence[int]]) -> LabelEncoding:
    """Encoding that accepts class ids, the palette's colours with black for void and, for CamVid's
    11 classes in any order, the ids and colours of its published label images."""
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
    """Read a label file without interpreting its values as class ids.

    Args:
        path: A regular file in a lossless format, detected from its content, or with the suffix
            .npy. Or a folder with one mask per cell, whose pixels get the numbers 1, 2, ... in the
            order of the file names.
        page: Page of a TIFF stack, counted from 0.
        size: (H, W) that the label must have.

    Raises:
        DataError: If the file cannot be read or its compression may have altered the ids.
        SizeError: If the label has another size.
    """
    try:
        if path.is_dir():
            return _combine_masks(path)
        if path.suffix.lower() == NPY:
            return _label_from_array(load_npy(path, MAX_PIXELS))
        with open_image(path, MAX_PIXELS, (*FORMATS, *LOSSY), ACCEPTED) as image:
            _check_lossless(image, path)
            seek_page(image, page, path.name)
            if size is not None and sorted(image.size) != sorted(size):  # possibly rotated by EXIF
                _check_size(path, image.size[::-1], size)
            label = _decode_label(image)
    except DataError:
        raise
    except Exception as error:  # Pillow raises various types for damaged files
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
        f"{path} is a label in {kind}, which alters ids and colours: export the labels again as "
        "PNG, since converting this file does not restore them"
    )


def _check_size(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> None:
    if found != size:
        raise SizeError(
            f"{path} is {found[1]} x {found[0]} pixels, but the image is {size[1]} x {size[0]}; "
            "the sizes must be equal"
        )


def _label_from_array(array: NDArray) -> LabelImage:
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise ValueError(
            f"it contains {array.dtype} of shape {array.shape}; expected integers of shape (H, W)"
        )
    return LabelImage(array, "grey")


def _combine_masks(folder: Path) -> LabelImage:
    """Number the cells of a folder with one mask per cell."""
    files = list_images(folder).images
    if not files:
        raise ValueError("it is a folder without masks; expected one image per cell")
    cells: NDArray[np.int32] | None = None
    for number, path in enumerate(files, start=1):
        values = load_label(path).values
        if values is None:
            raise DataError(
                f"{path} is a colour image; expected the mask of one cell, with 0 outside the cell"
            )
        cells = np.zeros(values.shape, np.int32) if cells is None else cells
        if values.shape != cells.shape:
            _check_size(path, values.shape, (cells.shape[0], cells.shape[1]))
        cells[values != 0] = number
    assert cells is not None
    return LabelImage(cells, "grey")


def _decode_label(image: Image.Image) -> LabelImage:
    if isinstance(image, TiffImageFile) and _tiff.needs_sample_decoding(image):
        return _decode_tiff_label(image)
    tiles = getattr(image, "tile", [])
    if tiles and tiles[0][3] in DEEP_COLORS:
        raise ValueError(f"it has 16 bits per colour channel; {EXPECTED_PIXELS}")
    scale = _pillow_scale(image)
    declared = _tiff.orientation_of(image) if isinstance(image, TiffImageFile) else 1
    image.load()
    orientation = exif_orientation(image)  # 1 for TIFFs, where `load` has applied it

    def upright(pixels: NDArray, kind: Kind, palette: NDArray | None = None) -> LabelImage:
        pixels = apply_orientation(pixels, orientation)
        return LabelImage(pixels, kind, palette, max(declared, orientation))

    mode = image.mode
    if mode == "1":
        return upright(np.array(image, np.uint8), "1-bit")
    if mode == "P":
        table = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return upright(np.array(image), "palette", np.pad(table, ((0, 256 - len(table)), (0, 0))))
    if mode == "L" or mode.startswith("I"):
        values = np.array(image)
        values = values.astype(values.dtype.newbyteorder("="))
        if scale != 1:
            values = (values / scale).round().astype(values.dtype)
        return upright(values, "grey")
    if mode in ("RGB", "RGBA", "LA", "PA"):
        pixels = np.array(image.convert("RGBA"))
        _check_alpha(pixels)
        return upright(pixels[..., :3], "colors")
    raise ValueError(f"it has the unsupported mode {mode}; {EXPECTED_PIXELS}")


def _pillow_scale(image: Image.Image) -> float:
    """Factor by which Pillow multiplies stored greyscale values to fill 8 or 16 bits."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return 1
    decoder, _, _, args = tiles[0]
    if image.format == "PPM" and decoder != "raw" and image.mode in ("L", "I"):
        return (255 if image.mode == "L" else 65535) / args[1]
    rawmode = str(args if isinstance(args, str) else args[0])
    return {"L;2": 85, "L;4": 17}.get(rawmode[:3], 1)


def _decode_tiff_label(image: TiffImageFile) -> LabelImage:
    """Decode a TIFF that Pillow alone does not decode exactly."""
    photometric = image.tag_v2.get(_tiff.PHOTOMETRIC, 0)
    orientation = _tiff.orientation_of(image)
    samples = apply_orientation(_tiff.read_samples(image, MAX_PIXELS), orientation)
    channels, dtype = samples.shape[2], samples.dtype
    if photometric == _tiff.RGB and channels >= 3 and dtype == np.uint8:
        return LabelImage(samples[..., :3], "colors", orientation=orientation)
    if photometric == _tiff.PALETTE:
        palette = _tiff.palette_of(image)
        indices = samples[..., 0].clip(max=len(palette) - 1)
        return LabelImage(indices, "palette", palette, orientation)
    if channels > 1 or dtype.kind == "f":
        raise ValueError(f"it has {count_of(channels, 'channel')} of {dtype}; {EXPECTED_PIXELS}")
    return LabelImage(samples[..., 0], "grey", orientation=orientation)


def _check_alpha(pixels: NDArray[np.uint8]) -> None:
    """Raise ValueError if only alpha varies between (H, W, 4) pixels."""
    if (pixels[..., :3] == pixels[0, 0, :3]).all() and (pixels[..., 3] != pixels[0, 0, 3]).any():
        raise ValueError(
            "its colour is constant and the objects are only in its alpha channel, which is not "
            "used: save the alpha channel as an 8-bit greyscale image"
        )


def _check_values(path: Path, values: NDArray, unknown: NDArray[np.bool_], expected: str) -> None:
    if unknown.any():
        ids = np.unique(values[unknown]).tolist()
        shown = str(ids) if len(ids) <= 10 else f"{str(ids[:10])[:-1]}, ...]"
        hint = ""
        if len(ids) >= MANY_IDS:
            hint = (
                "; this many undeclared ids are typical of labels that were smoothed, resized with "
                "interpolation or saved as JPEG"
            )
        raise DataError(f"{path} has ids {shown}; expected {expected}{hint}")
