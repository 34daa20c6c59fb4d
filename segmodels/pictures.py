"""Any picture to an RGB array, or a PictureError that says what is wrong with it."""

import os
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

Pixel = TypeVar("Pixel", np.uint8, np.float32)
Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

# Pillow reads more, some of it (EPS) by starting other programs on the file.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
ACCEPTED = (
    f"a picture file ({', '.join(FORMATS)}), a PIL image, or a uint8 array (H, W), (H, W, 3) or "
    "(H, W, 4)"
)
MAX_PIXELS = 178_956_970  # as Pillow: above it a small file is taken for a decompression bomb

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
_warning_filters = threading.Lock()


class PictureError(ValueError):
    """A picture that cannot be used: what is wrong with it, and what is accepted."""


def read_picture(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB: turned as EXIF says, transparency over white, the first frame of an
    animation, 16-bit grey and floats in [0, 1] scaled to 8 bits.

    max_pixels: refuse, before decoding, a picture with more; Pillow's own limit (`MAX_PIXELS`
        unless changed) holds besides.
    """
    return np.array(read_image(picture, max_pixels=max_pixels))


def read_image(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`read_picture` as a PIL image of mode RGB."""
    if isinstance(picture, np.ndarray):
        return _read_image(_from_array(picture), "the array", max_pixels)
    if isinstance(picture, Image.Image):
        return _read_image(picture, "the picture", max_pixels)
    if not isinstance(picture, str | os.PathLike):
        raise PictureError(f"got {type(picture).__name__}; expected {ACCEPTED}")
    path = Path(picture)
    with _open(path) as image:
        return _read_image(image, path.name, max_pixels)


def _open(path: Path) -> Image.Image:
    if path.is_dir():
        raise PictureError(f"{path} is a folder; expected {ACCEPTED}")
    try:
        if path.stat().st_size == 0:
            raise PictureError(f"{path.name} is empty (0 bytes); expected {ACCEPTED}")
        with _warning_filters, warnings.catch_warnings():
            # Half of Pillow's limit makes it warn; here a picture is accepted or refused.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS)
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}; expected {ACCEPTED}") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{path.name} is not a picture; expected {ACCEPTED}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path.name} has too many pixels: {error}") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise PictureError(f"{path.name} cannot be read: {error}; expected {ACCEPTED}") from error


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
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{name} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.1f} megapixels; at most "
            f"{max_pixels / 1e6:.1f} are accepted: scale it down first"
        )
    try:
        frame = image.tell()
        if frame == 0:
            return _decode(image)
        image.seek(0)
        try:
            return _decode(image).copy()
        finally:
            image.seek(frame)
    except PictureError as error:
        raise PictureError(f"{name} {error}") from error
    except Exception as error:
        raise PictureError(
            f"{name} is damaged, cut off or of a kind that is not read ({image.format or 'PIL'}, "
            f"mode {image.mode}): {error}; expected {ACCEPTED}"
        ) from error


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    orientation = _orientation(image)  # after loading, with which Pillow turns TIFFs by itself
    image = _to_srgb(_to_eight_bits(image))
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


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (0..65535) and floating-point grey ([0, 1]) as 8-bit grey; others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float32)
    full = 1.0 if image.mode == "F" else 65535.0
    lowest, highest = values.min(), values.max()
    if not (lowest >= -0.01 * full and highest <= 1.01 * full):  # or NaN
        raise PictureError(
            f"has grey values from {lowest:g} to {highest:g}; expected 0 to {full:g} in a picture "
            f"of mode {image.mode}"
        )
    grey = (255 / full * values.clip(0, full) + 0.5).astype(np.uint8)
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
