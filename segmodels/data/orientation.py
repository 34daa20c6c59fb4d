"""EXIF orientation of images and arrays."""

from numpy.typing import NDArray
from PIL import Image, ImageOps

ORIENTATION_KEY = "segmodels_orientation"  # in `Image.info`
EXIF_ORIENTATION = 0x0112  # tag


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded image, 1 to 8; 1 if it is missing or unreadable."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises various types for damaged EXIF data
        return 1
    return value if value in range(1, 9) else 1


def make_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Apply an orientation and record it in `Image.info`; the image itself if it is 1."""
    if orientation == 1:
        return image
    image = image.copy()
    image.getexif().clear()
    image.getexif()[EXIF_ORIENTATION] = orientation
    image = ImageOps.exif_transpose(image)
    image.info[ORIENTATION_KEY] = orientation
    return image


def apply_orientation(array: NDArray, orientation: int) -> NDArray:
    """Apply an orientation, as defined by EXIF 2.3, to an (H, W, ...) array; returns a view."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array
