"""Resizing of images and class maps."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixel = TypeVar("Pixel", np.uint8, np.float32)


def resize(image: NDArray[Pixel], longer_side: int, *, nearest: bool = False) -> NDArray[Pixel]:
    """Resize an array to the given length of its longer side, keeping the aspect ratio.

    Args:
        image: (H, W) or (H, W, C).
        longer_side: In pixels.
        nearest: Nearest-neighbour interpolation, for class ids. False: antialiased bilinear.

    Returns:
        The resized array; `image` itself if it has that size already.
    """
    if max(image.shape[:2]) == longer_side:
        return image
    if image.ndim == 3 and image.shape[2] != 3:
        channels = np.moveaxis(image, 2, 0)
        return np.dstack([resize(one, longer_side, nearest=nearest) for one in channels])
    return np.array(resize_image(Image.fromarray(image), longer_side, nearest=nearest))


def resize_image(image: Image.Image, longer_side: int, *, nearest: bool = False) -> Image.Image:
    """Resize a PIL image, see `resize`.

    To reduce an image by more than a factor of four, blocks of whole pixels are averaged first, to
    no less than twice the final size.
    """
    if max(image.size) == longer_side:
        return image
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return image.resize((width, height), method, reducing_gap=None if nearest else 2.0)
