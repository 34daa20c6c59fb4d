"""Any picture to an RGB array, or a PictureError that says what is wrong with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from segmodels.data._untrusted_images import (
    ACCEPTED,
    FORMATS,
    MAX_PIXELS,
    PictureError,
    check_size,
    opened,
)

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Picture",
    "PictureError",
    "read_image",
    "read_picture",
    "resize",
]

Pixel = TypeVar("Pixel", np.uint8, np.float32)
Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

# What white may be, by mode: the first that no value is above. Photographs of 16 bits fill them;
# PIL's own conversions to "I" and "F" leave values of 0 to 255 as they are.
WHITES = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}
DEEP_WHITE = (65535.0,)  # "I;16" and its byte orders

# EXIF's orientations (2 to 8) as the transposition that turns the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB: turned as EXIF says, transparency over white, the first frame of an
    animation, 16-bit grey scaled to 8 bits, and so 32-bit integers (of 0..255 or 0..65535, as the
    largest tells) and floats (of [0, 1], 0..255 or 0..65535).

    max_pixels: refuse, before decoding, a picture with more.
    Raises PictureError.
    """
    return np.array(read_image(picture, max_pixels=max_pixels))


def read_image(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`read_picture` as a PIL image of mode RGB, which may be the one that was given."""
    if isinstance(picture, np.ndarray):
        return _read_image(_from_array(picture), "the array", max_pixels)
    if isinstance(picture, Image.Image):
        return _read_image(picture, "the picture", max_pixels)
    if not isinstance(picture, str | os.PathLike):
        raise PictureError(f"got {type(picture).__name__}; expected {ACCEPTED}")
    path = Path(picture)
    with opened(path, max_pixels) as image:
        return _read_image(image, path.name, max_pixels)


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


def _read_image(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """`read_image` of an image, which is left open and at its frame."""
    check_size(image, name, max_pixels)
    try:
        with _first_frame(image) as is_first:
            image.load()
            check_size(image, name, max_pixels)  # an icon may hold a larger picture than it says
            decoded = _decoded(image, name)
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
def _first_frame(image: Image.Image) -> Iterator[bool]:
    """The image at its first frame; whether it was there."""
    frame = image.tell()
    if frame == 0 or image.format == "PSD":  # a PSD's frames are its layers; whole it comes first
        yield True
        return
    image.seek(0)
    try:
        yield False
    finally:
        image.seek(frame)


def _decoded(image: Image.Image, name: str) -> Image.Image:
    orientation = _orientation(image)  # after loading, with which Pillow turns TIFFs by itself
    image = _to_srgb(_to_eight_bits(image, name))
    if image.mode == "La":  # of which PIL converts nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF that cannot be read turns nothing
        return 1


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 or 32 bits and of floats as 8-bit grey; others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float32)
    lowest, highest = values.min(), values.max()
    whites = WHITES.get(image.mode, DEEP_WHITE)
    white = next((white for white in whites if highest <= 1.01 * white), 0)  # 0 for NaN
    if not (white and lowest >= -0.01 * white):
        raise PictureError(
            f"{name} has grey values from {lowest:g} to {highest:g}; expected 0 to "
            f"{' or '.join(f'{white:g}' for white in whites)} in a picture of mode {image.mode}"
        )
    grey = (255 / white * values.clip(0, white) + 0.5).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255  # over white
    return Image.fromarray(grey)


def _to_srgb(image: Image.Image) -> Image.Image:
    """By the picture's own colour profile, if it has one that can be used; LAB always."""
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
    except ImageCms.PyCMSError:  # a profile of other channels than the picture's
        return image


def resize(picture: NDArray[Pixel], longer_side: int, *, nearest: bool = False) -> NDArray[Pixel]:
    """(H, W, 3) or (H, W) scaled so that its longer side has `longer_side` pixels: antialiased
    bilinear, or `nearest` for class ids."""
    if max(picture.shape[:2]) == longer_side:
        return picture
    return np.array(resize_image(Image.fromarray(picture), longer_side, nearest=nearest))


def resize_image(image: Image.Image, longer_side: int, *, nearest: bool = False) -> Image.Image:
    """`resize` of a PIL image. What shrinks more than fourfold is first averaged over blocks of
    whole pixels, to no less than twice its final size."""
    if max(image.size) == longer_side:
        return image
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return image.resize((width, height), method, reducing_gap=None if nearest else 2.0)
