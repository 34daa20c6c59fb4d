"""Reading of image files: any supported image as RGB, or with all of its channels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _tiff
from segmodels.data._untrusted_images import (
    ACCEPTED,
    FORMATS,
    MAX_PIXELS,
    PictureError,
    check_size,
    open_image,
)
from segmodels.data.color import to_rgb
from segmodels.data.depth import DEPTH_KEY, Depth, scale_to_uint8
from segmodels.data.formats import decode_special
from segmodels.data.multispectral import NPY, npy_channels, tiff_channels
from segmodels.data.orientation import ORIENTATION_KEY, apply_orientation
from segmodels.data.stacks import full_size_pages, seek_page
from segmodels.utils.formatting import count_of

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "ImageProperties",
    "Picture",
    "PictureError",
    "inspect_image",
    "note_of",
    "page_count",
    "read_channels",
    "read_image",
    "read_image_array",
]

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class ImageProperties:
    """Properties of an image file that the decoded pixels do not show.

    Attributes:
        depth: Type and range of the stored values.
        orientation: EXIF orientation, 1 to 8, which has been applied.
    """

    depth: Depth
    orientation: int


# ---- public ----


def read_image_array(source: Picture, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image as an array, see `read_image`.

    Args:
        source: A path, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
        max_pixels: Images with more pixels are rejected before they are decoded.

    Returns:
        (H, W, 3) uint8 sRGB, a copy.

    Raises:
        PictureError: If the image cannot be used.
    """
    return np.array(read_image(source, max_pixels=max_pixels))


def read_image(source: Picture, *, max_pixels: int = MAX_PIXELS, page: int = 0) -> Image.Image:
    """Read an image as sRGB, upright according to EXIF, with transparency composited over white.

    Values of more than 8 bits are scaled by the depth that the file declares or, if it declares
    none, by the smallest usual depth (8, 10, 12, 14 or 16 bits; for floats also 0 to 1) that
    contains them; `note_of` then describes the choice. Only the first frame of an animation is
    read.

    Args:
        source: A path, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
        max_pixels: Images with more pixels are rejected before they are decoded.
        page: Page of a TIFF stack, counted from 0; see `page_count`.

    Returns:
        Mode RGB; possibly the given image itself.

    Raises:
        PictureError: If it is not an image, is damaged or too large, or if its colours are not
            supported.
    """
    if isinstance(source, np.ndarray):
        return _read_image(_from_array(source), "the array", max_pixels)
    if isinstance(source, Image.Image):
        return _read_image(source, "the image", max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise PictureError(f"got {type(source).__name__}; expected {ACCEPTED}")
    path = Path(source)
    with open_image(path, max_pixels) as image:
        if page:
            seek_page(image, page, path.name)
        decoded = _read_image(image, path.name, max_pixels, own=True)
        return decoded.copy() if page else decoded  # the copy is detached from the file's pages


def note_of(image: Image.Image) -> str | None:
    """Message on how `read_image` interpreted the values of this image, or None."""
    depth = image.info.get(DEPTH_KEY)
    return depth.note if isinstance(depth, Depth) else None


def page_count(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> int:
    """Count the images in a file: the full-size pages of a TIFF stack, 1 for other formats.

    Raises:
        PictureError: If it is not a readable image file.
    """
    path = Path(path)
    if path.suffix.lower() == NPY:
        return 1
    with open_image(path, max_pixels) as image:
        return len(full_size_pages(image)) if isinstance(image, TiffImageFile) else 1


def read_channels(
    path: str | os.PathLike[str],
    channels: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    page: int = 0,
) -> NDArray[np.uint8]:
    """Read an image file with all of its channels: multispectral TIFF, .npy or any other image.

    Args:
        path: The file. An .npy array is (H, W), (H, W, C) or (C, H, W), of integers or floats.
        channels: Number of expected channels. None: 3 for greyscale and RGB images, otherwise all
            channels of the file. With 4 or more, extra samples of an RGB TIFF are included.
        max_pixels: Images with more pixels are rejected.
        page: Page of a TIFF stack, counted from 0.

    Returns:
        (H, W, C) uint8; deeper values are scaled as in `read_image`, with the same factor for all
        channels.

    Raises:
        PictureError: If the file cannot be read, or has another number of channels.
    """
    return _read_channels(Path(path), channels, max_pixels, page)[0]


def inspect_image(
    path: str | os.PathLike[str], channels: int | None = None, *, page: int = 0
) -> tuple[NDArray[np.uint8], ImageProperties]:
    """Read an image file as `read_channels` does, together with its properties.

    Raises:
        PictureError: As in `read_channels`.
    """
    array, depth, orientation = _read_channels(Path(path), channels, MAX_PIXELS, page)
    if depth is None:
        used = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
        depth = Depth("8-bit integers", int(used[0]), int(used[-1]), len(used), 255)
    return array, ImageProperties(depth, orientation)


# ---- reading ----


def _read_channels(
    path: Path, channels: int | None, max_pixels: int, page: int
) -> tuple[NDArray[np.uint8], Depth | None, int]:
    """Pixels, depth (None for 8 bits) and orientation."""
    samples: tuple[NDArray, float | None, int] | None
    if path.suffix.lower() == NPY:
        samples = npy_channels(path, max_pixels), None, 1
    else:
        samples = tiff_channels(path, channels, max_pixels, page)
    if samples is None:
        image = read_image(path, max_pixels=max_pixels, page=page)
        array, depth = np.array(image), image.info.get(DEPTH_KEY)
        orientation = image.info.get(ORIENTATION_KEY, 1)
    else:
        values, white, orientation = samples
        array, depth = scale_to_uint8(apply_orientation(values, orientation), white, path.name)
        if array.shape[2] == 1:
            array = array.repeat(3, 2)
    if channels not in (None, 1, array.shape[2]):
        found = count_of(array.shape[2], "channel")
        raise PictureError(f"{path.name} has {found}; expected {channels}")
    return array, depth, orientation


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
    """Convert an image to upright RGB; it stays open and at its frame.

    own: The image was opened by this module and is not loaded yet.
    """
    check_size(image, name, max_pixels)
    try:
        with _first_frame(image, own) as is_first:
            declared = 1  # by a TIFF: Pillow applies and removes it when it loads the image
            if own and isinstance(image, TiffImageFile):
                declared = _tiff.orientation_of(image)
            decoded = decode_special(image, name, max_pixels) if own else None
            if decoded is None:
                tiles = getattr(image, "tile", [])
                frame = tiles[0][1] if image.format == "GIF" and tiles else None
                image.load()
                check_size(image, name, max_pixels)  # an icon may be larger than it declares
                decoded = to_rgb(image, name, frame)
            if declared != 1:
                decoded.info[ORIENTATION_KEY] = declared
            return decoded if is_first else decoded.copy()  # before seeking back
    except MemoryError as error:
        raise PictureError(
            f"{name} ({image.width} x {image.height} pixels) does not fit into memory: scale it "
            "down first"
        ) from error
    except PictureError:
        raise
    except Exception as error:  # Pillow raises various types for damaged files
        raise PictureError(
            f"{name} is damaged, truncated or of an unsupported type ({image.format or 'PIL'}, "
            f"mode {image.mode}): {error}; expected {ACCEPTED}"
        ) from error


@contextmanager
def _first_frame(image: Image.Image, own: bool) -> Iterator[bool]:
    """Seek to the first frame, and back afterwards; yields whether the image was already there.

    Not applied to PSDs, which open at the composite of their layers, to HEIFs, which open at the
    primary image, and to TIFFs opened by this module, which are at the requested page.
    """
    frame = image.tell()
    if frame == 0 or image.format in ("PSD", "HEIF") or (own and image.format == "TIFF"):
        yield True
        return
    image.seek(0)
    try:
        yield False
    finally:
        image.seek(frame)
