"""Images with any number of channels: multispectral TIFFs and NumPy arrays (.npy)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _tiff
from segmodels.data._untrusted_images import PictureError, open_image, open_regular
from segmodels.data.stacks import seek_page

NPY = ".npy"
MAX_CHANNELS = 64  # of an .npy array; a longer axis is taken for height or width


def tiff_channels(
    path: Path, channels: int | None, max_pixels: int, page: int
) -> tuple[NDArray, float | None, int] | None:
    """Read the samples of a multispectral TIFF, or the extra samples of an RGB TIFF.

    Args:
        path: An image file of any format.
        channels: Number of expected channels, if known.
        max_pixels: Limit for the number of pixels.
        page: Page of a TIFF stack, counted from 0.

    Returns:
        Samples (H, W, C) as stored, the declared value of white and the orientation; None if
        `read_image` returns all requested channels of the file.

    Raises:
        PictureError: If the file cannot be read.
    """
    with open_image(path, max_pixels) as image:
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


def npy_channels(path: Path, max_pixels: int) -> NDArray:
    """Read an image from an .npy file, (H, W), (H, W, C) or (C, H, W), as (H, W, C).

    Raises:
        PictureError: If the file cannot be read or the shape is not that of an image.
    """
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
    return array


def load_npy(path: Path, max_pixels: int) -> NDArray:
    """Read the array of an .npy file, without unpickling.

    Args:
        path: The file.
        max_pixels: Limit for the size, with 16 bytes per pixel.

    Returns:
        Integers or floats in native byte order; booleans as uint8.

    Raises:
        PictureError: If it is not an array of integers or floats, or is too large.
    """
    with open_regular(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
        except Exception as error:
            raise PictureError(f"{path.name} is not an .npy array: {error}") from error
        if dtype.kind not in "buif" or not shape or 0 in shape:
            raise PictureError(
                f"{path.name} contains {dtype} of shape {shape}; expected integers or floats"
            )
        if np.prod([float(side) for side in shape]) * dtype.itemsize > 16.0 * max_pixels:
            raise PictureError(f"{path.name} has shape {shape}, which is too large for the memory")
        file.seek(0)
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise PictureError(f"{path.name} is damaged or truncated: {error}") from error
    return array.astype(np.uint8 if dtype.kind == "b" else dtype.newbyteorder("="))
