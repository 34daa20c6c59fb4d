"""Bit depth of images: values of any integer or float type are scaled to 8 bits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data._untrusted_images import PictureError

DEPTH_KEY = "segmodels_depth"  # in `Image.info`

# Candidates for the value of white; the first one that no pixel exceeds is used. Sensors deliver
# 10, 12, 14 or 16 bits; Pillow's conversions to modes "I" and "F" leave 8-bit values unscaled.
WHITE_LEVELS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
FLOAT_WHITE_LEVELS = (1.0, *WHITE_LEVELS)


@dataclass(frozen=True)
class Depth:
    """Type and range of an image's stored values, and how they were scaled.

    Attributes:
        kind: Data type, such as "8-bit integers", "16-bit integers" or "floats".
        smallest: Smallest value.
        largest: Largest value.
        levels: Number of distinct values; None for floats.
        white: Value that was mapped to white (255).
        note: Message for the user if `white` was inferred from the values.
    """

    kind: str
    smallest: float
    largest: float
    levels: int | None
    white: float
    note: str | None = None


def with_depth(image: Image.Image, depth: Depth | None) -> Image.Image:
    """Record the depth in `image.info`, unless it is None; returns the same image."""
    if depth is not None:
        image.info[DEPTH_KEY] = depth
    return image


def white_level(
    largest: float, smallest: float, is_float: bool, declared: float | None = None
) -> float:
    """Value of white for a range of values, or 0 if the range is not supported.

    The level that the file declares takes precedence, if all values are within 0 and that level.
    """
    if declared is not None and largest <= declared and smallest >= 0:
        return declared
    levels = FLOAT_WHITE_LEVELS if is_float else WHITE_LEVELS
    white = next((white for white in levels if largest <= 1.01 * white), 0.0)  # 0 for NaN
    return white if smallest >= -0.01 * white else 0.0


def scale_to_uint8(
    values: NDArray, declared: float | None, name: str, colors: int | None = None
) -> tuple[NDArray[np.uint8], Depth | None]:
    """Scale values to 0..255.

    Args:
        values: (..., C) integers or floats.
        declared: Value of white that the file declares, if any.
        name: For messages.
        colors: Number of leading channels that determine the depth; the others are alpha. None:
            all.

    Returns:
        The scaled values and their depth; uint8 values are returned as they are, with None.

    Raises:
        PictureError: If the range of the values is not supported.
    """
    if values.dtype == np.uint8:
        return values, None
    measured = values if colors is None else values[..., :colors]
    smallest, largest = float(measured.min()), float(measured.max())
    is_float = values.dtype.kind == "f"
    white = white_level(largest, smallest, is_float, declared)
    if not white:
        *levels, last = (f"{one:g}" for one in (FLOAT_WHITE_LEVELS if is_float else WHITE_LEVELS))
        raise PictureError(
            f"{name} has values from {smallest:g} to {largest:g}; expected 0 to "
            f"{', '.join(levels)} or {last}"
        )
    scaled = (255 / white * values.astype(np.float32).clip(0, white) + 0.5).astype(np.uint8)
    kind = "floats" if is_float else f"{8 * values.dtype.itemsize}-bit integers"
    full = 1.0 if is_float else float(np.iinfo(values.dtype).max)
    note = None
    if white != declared and white not in (full, 65535.0):
        note = f"{name}: {kind} from {smallest:g} to {largest:g}, read as 0 (black) to {white:g} "
        note += "(white)"
    distinct = None
    if not is_float:
        distinct = int(np.count_nonzero(np.bincount(measured.clip(0).ravel().astype(np.intp))))
    return scaled, Depth(kind, smallest, largest, distinct, white, note)


def grey_to_uint8(image: Image.Image, name: str) -> tuple[Image.Image, Depth | None]:
    """Convert a greyscale image of 16-bit or 32-bit integers or floats to mode "L".

    Pixels of the transparent value, if there is one, become white.
    """
    values = np.asarray(image)
    grey, depth = scale_to_uint8(values.astype(values.dtype.newbyteorder("=")), None, name)
    if "transparency" in image.info:
        grey = grey.copy()
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey), depth
