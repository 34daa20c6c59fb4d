"""Any image to RGB, or a PictureError that says what is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, ImageFile, ImageOps
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _boxes, _tiff
from segmodels.data._untrusted_images import (
    ACCEPTED,
    FORMATS,
    INSTALL_HEIF,
    MAX_PIXELS,
    PictureError,
    check_size,
    has_heif,
    open_regular,
    opened,
)

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "FolderListing",
    "Picture",
    "PictureError",
    "inspect_image",
    "list_images",
    "note_of",
    "page_count",
    "read_channels",
    "read_image",
    "read_image_array",
    "resize",
]

Pixel = TypeVar("Pixel", np.uint8, np.float32)
Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

DEPTH, ORIENTATION = "segmodels_depth", "segmodels_orientation"  # in `Image.info`
NPY = ".npy"
MAX_CHANNELS = 64  # of an array file, by which its axes are told apart

# What white may be: the first that no value exceeds. Sensors have 10, 12, 14 or 16 bits; Pillow's
# own conversions to "I" and "F" leave values of 0 to 255 as they are.
DEPTHS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
FLOAT_DEPTHS = (1.0, *DEPTHS)

# Files beside images that are no images; the suffixes are those of labels and notes.
IGNORED_NAMES = ("thumbs.db", "desktop.ini", ".ds_store")
IGNORED_SUFFIXES = (".json", ".txt", ".xml", ".csv", ".md", ".yaml", ".yml", ".ini", ".db")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")


@dataclass(frozen=True)
class Depth:
    """The values of an image as they are stored, and how they are read.

    Attributes:
        kind: "8-bit integers", "16-bit integers", "floats" and the like.
        smallest: Of its values.
        largest: Of its values.
        levels: The number of different values; None for floats.
        white: The value that stands for white.
        note: What the user should know, if white was concluded from the values.
    """

    kind: str
    smallest: float
    largest: float
    levels: int | None
    white: float
    note: str | None = None


# ---- public ----


def read_image_array(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image as an array: see `read_image`.

    Returns:
        (H, W, 3) uint8 sRGB, a copy.

    Raises:
        PictureError: If the image cannot be used.
    """
    return np.array(read_image(picture, max_pixels=max_pixels))


def read_image(picture: Picture, *, max_pixels: int = MAX_PIXELS, page: int = 0) -> Image.Image:
    """Read an image as sRGB, upright as EXIF says, transparency over white.

    Values of more than 8 bits are scaled by the depth that the file declares or, where it declares
    none, by the smallest usual depth (8, 10, 12, 14 or 16 bits; for floats also 0 to 1) that holds
    them; `note_of` then tells. Of an animation the first frame is read.

    Args:
        picture: A path, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
        max_pixels: Refuse, before decoding, an image with more.
        page: Of a TIFF stack, counted from 0, see `page_count`.

    Returns:
        Mode RGB; it may be the image that was given.

    Raises:
        PictureError: If it is not an image, is damaged or too large, or its colors are not known.
    """
    if isinstance(picture, np.ndarray):
        return _read_image(_from_array(picture), "the array", max_pixels)
    if isinstance(picture, Image.Image):
        return _read_image(picture, "the image", max_pixels)
    if not isinstance(picture, str | os.PathLike):
        raise PictureError(f"got {type(picture).__name__}; expected {ACCEPTED}")
    path = Path(picture)
    with opened(path, max_pixels) as image:
        if page:
            seek_page(image, page, path.name)
        decoded = _read_image(image, path.name, max_pixels, own=True)
        return decoded.copy() if page else decoded  # a copy is at no page of a file that is closed


def note_of(image: Image.Image) -> str | None:
    """What the user should know of how `read_image` read this image, or None."""
    depth = image.info.get(DEPTH)
    return depth.note if isinstance(depth, Depth) else None


def page_count(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> int:
    """The number of images in a file: the full-size pages of a TIFF stack, 1 for anything else.

    Raises:
        PictureError: If it is not a readable image file.
    """
    path = Path(path)
    if path.suffix.lower() == NPY:
        return 1
    with opened(path, max_pixels) as image:
        return len(_pages(image)) if isinstance(image, TiffImageFile) else 1


def read_channels(
    path: str | os.PathLike[str],
    channels: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    page: int = 0,
) -> NDArray[np.uint8]:
    """Read an image with as many channels as it has: multispectral TIFF, .npy, or any other.

    Args:
        path: A file. An .npy array is (H, W), (H, W, C) or (C, H, W) of integers or floats.
        channels: How many are expected. None: 3 for grey and RGB images, else all there are. With
            4 or more, the extra samples of an RGB TIFF count too.
        max_pixels: Refuse an image with more.
        page: Of a TIFF stack.

    Returns:
        (H, W, C) uint8, deeper values scaled as in `read_image`, by one white for all channels.

    Raises:
        PictureError: If the file cannot be read, or has other channels than expected.
    """
    return _read_channels(Path(path), channels, max_pixels, page)[0]


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of its image, beside the pixels.

    Attributes:
        depth: Of its values.
        orientation: EXIF's, 1 to 8, which has been applied.
    """

    depth: Depth
    orientation: int


def inspect_image(
    path: str | os.PathLike[str], channels: int | None = None, *, page: int = 0
) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Read an image as `read_channels` does, and what else is to be known of it.

    Raises:
        PictureError: As `read_channels`.
    """
    array, depth, orientation = _read_channels(Path(path), channels, MAX_PIXELS, page)
    if depth is None:
        used = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
        depth = Depth("8-bit integers", int(used[0]), int(used[-1]), len(used), 255)
    return array, ImageFacts(depth, orientation)


def _read_channels(
    path: Path, channels: int | None, max_pixels: int, page: int
) -> tuple[NDArray[np.uint8], Depth | None, int]:
    """Pixels, the depth unless it is 8 bits, and the orientation."""
    samples = _npy(path, max_pixels) if path.suffix.lower() == NPY else None
    if samples is None:
        samples = _multispectral(path, channels, max_pixels, page)
    if samples is None:
        image = read_image(path, max_pixels=max_pixels, page=page)
        array, depth = np.array(image), image.info.get(DEPTH)
        orientation = image.info.get(ORIENTATION, 1)
    else:
        values, white, orientation = samples
        array, depth = _scaled(turned(values, orientation), white, path.name)
        if array.shape[2] == 1:
            array = array.repeat(3, 2)
    if channels not in (None, 1, array.shape[2]):
        raise PictureError(f"{path.name} has {array.shape[2]} channels; expected {channels}")
    return array, depth, orientation


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder.

    Attributes:
        images: Files that may be images, sorted: those with a suffix of a format that is read, or
            without a suffix.
        ignored: Files that are no images, such as Thumbs.db, ._photo.jpg, photo.json.
        unread: Files of other formats.
    """

    images: list[Path]
    ignored: list[Path]
    unread: list[Path]

    def notes(self, folder: Path) -> list[str]:
        """A sentence each on what was ignored and what is not read."""
        notes = []
        if self.ignored:
            names = ", ".join(path.name for path in self.ignored[:3])
            more = ", ..." * (len(self.ignored) > 3)
            files = "1 file" if len(self.ignored) == 1 else f"{len(self.ignored)} files"
            notes.append(f"{folder}: ignored {files} not in an image format ({names}{more})")
        if self.unread:
            counts = Counter(path.suffix.lower() for path in self.unread)
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
            notes.append(
                f"{folder}: left out {len(self.unread)} in formats that are not read ({kinds})"
                f"{heif_hint(counts)}"
            )
        return notes


def heif_hint(suffixes: Iterable[str]) -> str:
    """How to read HEIC, if that is among the suffixes."""
    return f"; {INSTALL_HEIF}" if any(s.lower() in HEIF_SUFFIXES for s in suffixes) else ""


def list_images(folder: Path) -> FolderListing:
    """Sort the files of a folder into images and others, by their names; subfolders are left out.

    Raises:
        OSError: If the folder cannot be read.
    """
    suffixes = _image_suffixes()
    images, ignored, unread = [], [], []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.is_dir():
            continue
        if path.name.lower() in IGNORED_NAMES or path.name.startswith("."):
            ignored.append(path)
        elif suffix in suffixes or not suffix:
            images.append(path)
        elif suffix in IGNORED_SUFFIXES:
            ignored.append(path)
        else:
            unread.append(path)
    return FolderListing(images, ignored, unread)


def _image_suffixes() -> frozenset[str]:
    has_heif()
    registered = Image.registered_extensions()
    return frozenset(s for s, kind in registered.items() if kind in FORMATS) | {NPY}


# ---- reading ----


def _from_array(array: NDArray) -> Image.Image:
    if array.dtype != np.uint8:
        raise PictureError(
            f"got an array of {array.dtype}; expected uint8 in 0..255 "
            "(for floats in [0, 1]: (255 * array).round().astype(np.uint8))"
        )
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PictureError(
            f"got an array of shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)"
        )
    if 0 in array.shape:
        raise PictureError(f"got an array of shape {array.shape}, which has no pixels")
    return Image.fromarray(np.ascontiguousarray(array))


def _read_image(image: Image.Image, name: str, max_pixels: int, own: bool = False) -> Image.Image:
    """`read_image` of an image, which is left open and at its frame. own: opened for this."""
    check_size(image, name, max_pixels)
    try:
        with _first_frame(image, own) as is_first:
            declared = 1  # by a TIFF, which Pillow turns when it loads it, and forgets
            if own and isinstance(image, TiffImageFile):
                declared = _tiff.orientation_of(image)
            decoded = _special(image, name, max_pixels) if own else None
            if decoded is None:
                tiles = getattr(image, "tile", [])
                frame = tiles[0][1] if image.format == "GIF" and tiles else None
                image.load()
                check_size(image, name, max_pixels)  # an icon may hold a larger one than it says
                decoded = _decoded(image, name, frame)
            if declared != 1:
                decoded.info[ORIENTATION] = declared
            return decoded if is_first else decoded.copy()  # before the other frame comes back
    except MemoryError as error:
        raise PictureError(
            f"{name} ({image.width} x {image.height} pixels) takes more memory than there is: "
            "scale it down first"
        ) from error
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(
            f"{name} is damaged, cut off or of a kind that is not read ({image.format or 'PIL'}, "
            f"mode {image.mode}): {error}; expected {ACCEPTED}"
        ) from error


@contextmanager
def _first_frame(image: Image.Image, own: bool) -> Iterator[bool]:
    """The image at its first frame; whether it was there. A TIFF of our own is at its page; a PSD's
    frames are its layers, whole it comes first; a HEIF is at its primary image."""
    frame = image.tell()
    if frame == 0 or image.format in ("PSD", "HEIF") or (own and image.format == "TIFF"):
        yield True
        return
    image.seek(0)
    try:
        yield False
    finally:
        image.seek(frame)


def _special(image: Image.Image, name: str, max_pixels: int) -> Image.Image | None:
    """RGB of files that Pillow alone does not read right; None for others."""
    if isinstance(image, TiffImageFile) and _tiff.needs_samples(image):
        return _tiff_image(image, name, max_pixels)
    if isinstance(image, PngImageFile):
        return _deep_png(image, name)
    if isinstance(image, Jpeg2KImageFile):
        return _jp2(image, name)
    if not isinstance(image, ImageFile.ImageFile):
        return None
    if image.format == "PPM":
        return _deep_ppm(image, name)
    if image.format == "AVIF":
        return _cropped_avif(image, name)
    return None


def _decoded(
    image: Image.Image, name: str, frame: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """RGB of a loaded image. frame: the part of the canvas that its first frame covers."""
    orientation = exif_orientation(image)  # after loading, with which Pillow turns TIFFs by itself
    depth = None
    if image.mode.startswith(("I", "F")):
        image, depth = _grey_to_eight_bits(image, name)
    elif image.mode == "1" and image.format in ("XBM", "PSD"):  # whose set bits are black
        image = ImageChops.invert(image.convert("L"))
    image = _to_srgb(image)
    if image.mode == "La":  # PIL converts it to nothing else
        image = image.convert("LA")
    if frame is not None and tuple(frame) != (0, 0, *image.size):
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size)
        canvas.paste(image.crop(frame), frame[:2])
        image = canvas
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return _with_depth(_upright(image, orientation), depth)


def _with_depth(image: Image.Image, depth: Depth | None) -> Image.Image:
    if depth is not None:
        image.info[DEPTH] = depth
    return image


def exif_orientation(image: Image.Image) -> int:
    """1 to 8, of an image that is loaded."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF that cannot be read turns nothing
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return image
    image = image.copy()
    image.getexif().clear()
    image.getexif()[0x0112] = orientation
    image = ImageOps.exif_transpose(image)
    image.info[ORIENTATION] = orientation
    return image


def turned(array: NDArray, orientation: int) -> NDArray:
    """(H, W, ...) as it is stored -> upright, as EXIF 2.3 defines the orientations; a view."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


# ---- depth ----


def white_of(
    largest: float, smallest: float, is_float: bool, declared: float | None = None
) -> float:
    """The value that stands for white, 0 if there is none. declared: by the file."""
    if declared is not None and largest <= declared and smallest >= 0:
        return declared
    depths = FLOAT_DEPTHS if is_float else DEPTHS
    white = next((white for white in depths if largest <= 1.01 * white), 0.0)  # 0 for NaN
    return white if smallest >= -0.01 * white else 0.0


def _scaled(
    values: NDArray, declared: float | None, name: str, colors: int | None = None
) -> tuple[NDArray[np.uint8], Depth | None]:
    """Values of any kind as uint8, and their depth, None for uint8. colors: so many of the last
    axis tell the depth; the rest is alpha."""
    if values.dtype == np.uint8:
        return values, None
    judged = values if colors is None else values[..., :colors]
    smallest, largest = float(judged.min()), float(judged.max())
    is_float = values.dtype.kind == "f"
    white = white_of(largest, smallest, is_float, declared)
    if not white:
        expected = "0 to " + " or ".join(
            f"{depth:g}" for depth in (FLOAT_DEPTHS if is_float else DEPTHS)
        )
        raise PictureError(
            f"{name} has values from {smallest:g} to {largest:g}; expected {expected}"
        )
    scaled = (255 / white * values.astype(np.float32).clip(0, white) + 0.5).astype(np.uint8)
    kind = "floats" if is_float else f"{8 * values.dtype.itemsize}-bit integers"
    full = 1.0 if is_float else float(np.iinfo(values.dtype).max)
    note = None
    if white != declared and white not in (full, 65535.0):
        note = f"{name}: {kind} from {smallest:g} to {largest:g}, read as 0 (black) to {white:g} "
        note += "(white)"
    levels = None
    if not is_float:
        levels = int(np.count_nonzero(np.bincount(judged.clip(0).ravel().astype(np.intp))))
    return scaled, Depth(kind, smallest, largest, levels, white, note)


def _grey_to_eight_bits(image: Image.Image, name: str) -> tuple[Image.Image, Depth | None]:
    """Grey of 16 or 32 bits and of floats as 8-bit grey."""
    values = np.asarray(image)
    grey, depth = _scaled(values.astype(values.dtype.newbyteorder("=")), None, name)
    if "transparency" in image.info:
        grey = grey.copy()
        grey[values == image.info["transparency"]] = 255  # over white
    result = Image.fromarray(grey)
    if "icc_profile" in image.info:
        result.info["icc_profile"] = image.info["icc_profile"]
    return result, depth


# ---- TIFF, PNG, PPM ----


def seek_page(image: Image.Image, page: int, name: str) -> None:
    """Go to one of the pages that `page_count` counts. PictureError if there is no such page."""
    pages = _pages(image) if isinstance(image, TiffImageFile) else [0]
    if page >= len(pages):
        raise PictureError(f"{name} has {len(pages)} pages; page {page} was asked for, from 0 on")
    image.seek(pages[page])


def _pages(image: TiffImageFile) -> list[int]:
    try:
        return list(_tiff.pages(image)) or [0]
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise PictureError(f"a page of the TIFF cannot be read: {error}") from error


def _tiff_image(image: TiffImageFile, name: str, max_pixels: int) -> Image.Image:
    tags = image.tag_v2
    photometric = tags.get(_tiff.PHOTOMETRIC, 0)
    if photometric not in _tiff.COLORS:
        raise _tiff.TiffError(f"colors of photometric interpretation {photometric}")
    samples = _tiff.read_samples(image, max_pixels)
    colors = _tiff.COLORS[photometric]
    extra = tags.get(_tiff.EXTRA_SAMPLES, ())
    count = samples.shape[2]
    if (
        count < colors
        or (colors == 1 and count - colors > max(1, len(extra)))
        or (colors == 1 and count > 2 and photometric != _tiff.PALETTE)
    ):
        raise PictureError(
            f"{name} has {count} channels that are not said to be colors; expected grey or RGB "
            f"(a network of {count} input channels takes them: --in-channels {count})"
        )
    alpha = extra[0] if extra else (2 if photometric == _tiff.RGB and count == 4 else 0)
    depth = None
    if photometric == _tiff.PALETTE:
        used = _tiff.palette_of(image)[samples[..., 0].astype(np.intp)]
        alphas = samples[..., 1:2]
    else:
        scaled, depth = _scaled(samples, _tiff.declared_white(image), name, colors)
        used, alphas = scaled[..., :colors], scaled[..., colors : colors + 1]
        if photometric == _tiff.WHITE_IS_ZERO:
            used = 255 - used
    if alpha in (1, 2, 999) and alphas.shape[2] and samples.dtype.kind == "u":
        if samples.dtype.itemsize > 1:  # opaque is all bits
            full = float(np.iinfo(samples.dtype).max)
            stored = samples[..., colors] if photometric != _tiff.PALETTE else samples[..., 1]
            alphas = (255 / full * stored + 0.5).astype(np.uint8)[..., None]
        used = np.concatenate([used, alphas], axis=2)
    decoded = _image_of(used, premultiplied=alpha == 1)
    decoded.info.update({k: v for k, v in image.info.items() if k == "icc_profile"})
    result = _upright(_decoded(decoded, name), _tiff.orientation_of(image))
    return _with_depth(result, depth)


def _image_of(array: NDArray[np.uint8], premultiplied: bool) -> Image.Image:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA", 5: "CMYK"}[array.shape[2]]
    if mode == "LA" and premultiplied:
        array, mode = np.repeat(array, [3, 1], axis=2), "RGBA"
    if mode == "RGBA" and premultiplied:
        mode = "RGBa"
    size = array.shape[1], array.shape[0]
    image = Image.frombytes(
        mode if mode != "L" else "L", size, np.ascontiguousarray(array).tobytes()
    )
    return image.convert("RGBA") if mode == "RGBa" else image


def _multispectral(
    path: Path, channels: int | None, max_pixels: int, page: int
) -> tuple[NDArray, float | None, int] | None:
    """Samples, white and orientation of a TIFF whose channels are no colors, or more than
    `read_image` gives."""
    with opened(path, max_pixels) as image:
        if not isinstance(image, TiffImageFile):
            return None
        if page:
            seek_page(image, page, path.name)
        tags = image.tag_v2
        count = tags.get(_tiff.SAMPLES, 1)
        extra = [kind for kind in tags.get(_tiff.EXTRA_SAMPLES, ()) if kind in (1, 2)]
        grey = tags.get(_tiff.PHOTOMETRIC, 0) in (_tiff.WHITE_IS_ZERO, _tiff.BLACK_IS_ZERO)
        if not (grey and count - len(extra) > 1) and channels != count:
            return None
        if channels == count and count <= 3 and not grey:
            return None
        try:
            samples = _tiff.read_samples(image, max_pixels)
            return samples, _tiff.declared_white(image), _tiff.orientation_of(image)
        except (_tiff.TiffError, OSError, ValueError, SyntaxError) as error:
            raise PictureError(f"{path.name} cannot be read: {error}") from error


def _npy(path: Path, max_pixels: int) -> tuple[NDArray, float | None, int]:
    array = load_npy(path, max_pixels)
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[2] > MAX_CHANNELS >= array.shape[0]:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] > MAX_CHANNELS:
        raise PictureError(
            f"{path.name} has shape {array.shape}; expected (H, W), (H, W, C) or (C, H, W) with at "
            f"most {MAX_CHANNELS} channels"
        )
    return array, None, 1


def load_npy(path: Path, max_pixels: int) -> NDArray:
    """The numbers of an .npy file, without unpickling anything.

    Raises:
        PictureError: If it is not an array of integers or floats, or too large.
    """
    with open_regular(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, type_ = read(file)
        except Exception as error:
            raise PictureError(f"{path.name} is not an .npy array: {error}") from error
        if type_.kind not in "buif" or not shape or 0 in shape:
            raise PictureError(
                f"{path.name} has {type_} of shape {shape}; expected integers or floats"
            )
        if np.prod([float(side) for side in shape]) * type_.itemsize > 16.0 * max_pixels:
            raise PictureError(f"{path.name} has shape {shape}, more than fits into memory")
        file.seek(0)
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise PictureError(f"{path.name} is damaged or cut off: {error}") from error
    return array.astype(np.uint8 if type_.kind == "b" else type_.newbyteorder("="))


def _deep_png(image: PngImageFile, name: str) -> Image.Image | None:
    """Colors of 16 bits: Pillow takes the high bytes. Where these are all small, the low ones tell
    the depth: they are what the same decoder gives for the other byte order."""
    if not (image.tile and image.tile[0][3] in ("RGB;16B", "RGBA;16B", "LA;16B")):
        return None
    rawmode = str(image.tile[0][3])
    file = image.fp
    assert file is not None
    image.load()
    colors = 3
    high = np.array(image)
    if high[..., :colors].max() >= 64:  # 16 bits: 64 * 256 is beyond 14
        return None
    file.seek(0)
    low = PngImageFile(file, "")
    if rawmode == "LA;16B":
        low._mode, other = "I", "I;32B"
    else:
        other = rawmode[:-1] + "L"
    low.tile = [tile._replace(args=other) for tile in low.tile]
    low.load()
    second = np.array(low)
    if rawmode == "LA;16B":
        pairs = second.view(np.uint32)
        values = np.stack([pairs >> 16] * 3 + [pairs & 0xFFFF], axis=2).astype(np.uint16)
    else:
        values = high.astype(np.uint16) << 8 | second
    scaled, depth = _scaled(values, None, name, colors)
    if values.shape[2] == 4:
        scaled[..., 3] = values[..., 3] >> 8
    elif isinstance(transparent := image.info.get("transparency"), tuple):
        alpha = np.where((values == transparent).all(axis=2), 0, 255).astype(np.uint8)
        scaled = np.dstack([scaled, alpha])
    decoded = _image_of(scaled, premultiplied=False)
    decoded.info.update({k: v for k, v in image.info.items() if k == "icc_profile"})
    result = _upright(_decoded(decoded, name), exif_orientation(image))
    return _with_depth(result, depth)


def _deep_ppm(image: ImageFile.ImageFile, name: str) -> Image.Image | None:
    """Binary colors of 16 bits: Pillow scales them by 65535, whatever they hold. Grey with another
    largest value than 65535 has been scaled by it."""
    decoder, _, offset, args = image.tile[0]
    if not isinstance(args, tuple) or len(args) < 2 or args[0] not in ("RGB", "L"):
        return None
    if args[0] == "L" and args[1] > 255:
        image.load()
        grey = np.asarray(image)
        return Image.fromarray((grey / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if args[0] == "RGB" and args[1] == 65535 and decoder == "ppm":
        file = image.fp
        assert file is not None
        file.seek(offset)
        wanted = image.width * image.height * 6
        content = file.read(wanted)
        if len(content) < wanted:
            raise OSError("image file is truncated")
        values = np.frombuffer(content, ">u2").reshape(image.height, image.width, 3)
        scaled, depth = _scaled(values.astype(np.uint16), None, name)
        return _with_depth(Image.fromarray(scaled), depth)
    return None


# ---- JPEG 2000, AVIF ----


def _content(image: ImageFile.ImageFile) -> bytes:
    file = image.fp
    assert file is not None
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    return content


def _jp2(image: Jpeg2KImageFile, name: str) -> Image.Image | None:
    """Colors in YCC, channels in another order and ICC profiles, which Pillow does not read; None
    where it does right."""
    content = _content(image)
    color = _boxes.jp2_color(content)
    if color is None:
        return None
    if color.space is not None and color.space not in _boxes.READ_SPACES:
        raise PictureError(
            f"{name} has its colors in the JPEG 2000 color space {color.space}, which is not read; "
            "save it in sRGB"
        )
    if color.space == _boxes.SYCC or color.channels:
        start, end = color.codestream
        image = Jpeg2KImageFile(BytesIO(content[start:end]), "")
        image.load()
        bands = image.split()
        order = color.channels or tuple(range(len(bands)))
        if len(order) > len(bands) or max(order) >= len(bands):
            raise ValueError("its channel definitions (cdef) name more channels than it has")
        colors = len(order) - color.has_alpha
        if (color.space == _boxes.SYCC) != (colors == 3 and color.space == _boxes.SYCC):
            raise ValueError(f"YCC of {colors} channels")
        mode = "YCbCr" if color.space == _boxes.SYCC else {1: "L", 3: "RGB", 4: "CMYK"}[colors]
        merged = (
            bands[order[0]]
            if colors == 1
            else Image.merge(mode, [bands[i] for i in order[:colors]])
        )
        if color.has_alpha:
            merged = merged.convert("RGB")
            merged.putalpha(bands[order[-1]])
        return _decoded(merged, name)
    image.load()
    if image.mode.startswith("I") and color.depth is not None and color.depth < 16:
        # Pillow has shifted its values to 16 bits.
        values = np.asarray(image).astype(np.float32) / (65535 - (1 << (16 - color.depth)) + 1)
        return _decoded(Image.fromarray((255 * values.clip(0, 1) + 0.5).astype(np.uint8)), name)
    if color.profile and "icc_profile" not in image.info:
        image.info["icc_profile"] = color.profile
    return _decoded(image, name)


def _cropped_avif(image: ImageFile.ImageFile, name: str) -> Image.Image | None:
    content = _content(image)
    box = _boxes.clean_aperture(content, *image.size)
    if box is None:
        return None
    image.load()
    cropped = image.crop(box)
    cropped.info.update(image.info)
    orientation = exif_orientation(image)
    cropped.info.pop("exif", None)
    return _upright(_decoded(cropped, name), orientation)


# ---- color, size ----


def _to_srgb(image: Image.Image) -> Image.Image:
    """By the image's own color profile, if it has one that can be used; LAB always."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif not profile:
        return image
    else:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return image
        except (OSError, ImageCms.PyCMSError):
            return image
    if image.mode in ("P", "PA", "LA") or "transparency" in image.info:
        image = image.convert("RGBA")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        return ImageCms.profileToProfile(image, source, srgb, outputMode=mode) or image
    except ImageCms.PyCMSError:  # a profile of other channels than the image's
        return image


def resize(image: NDArray[Pixel], longer_side: int, *, nearest: bool = False) -> NDArray[Pixel]:
    """(H, W, C) or (H, W) scaled so that its longer side has `longer_side` pixels: antialiased
    bilinear, or `nearest` for class ids."""
    if max(image.shape[:2]) == longer_side:
        return image
    if image.ndim == 3 and image.shape[2] != 3:
        channels = np.moveaxis(image, 2, 0)
        return np.dstack([resize(one, longer_side, nearest=nearest) for one in channels])
    return np.array(resize_image(Image.fromarray(image), longer_side, nearest=nearest))


def resize_image(image: Image.Image, longer_side: int, *, nearest: bool = False) -> Image.Image:
    """`resize` of a PIL image. What shrinks more than fourfold is first averaged over blocks of
    whole pixels, to no less than twice its final size."""
    if max(image.size) == longer_side:
        return image
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return image.resize((width, height), method, reducing_gap=None if nearest else 2.0)
