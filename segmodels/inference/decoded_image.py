"""Decoded images, so that several networks and views share one decoding and hash."""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segmodels.data._untrusted_images import check_size
from segmodels.data.image_io import MAX_PIXELS, Picture, PictureError, read_channels, read_image
from segmodels.data.multispectral import NPY
from segmodels.data.resizing import resize, resize_image
from segmodels.utils.formatting import count_of


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, accepted by `Segmenter` and `compare` in place of a path, image or array.

    Attributes:
        image: RGB, upright according to EXIF; must not be modified. With `samples`, their first
            three channels; missing channels are 0.
        digest: Hexadecimal SHA-256 of the file or, without a file, of the size and the pixels.
        samples: (H, W, C) uint8, for networks whose number of input channels is not 1 or 3; None:
            the image has only RGB.
    """

    image: Image.Image
    digest: str
    samples: NDArray[np.uint8] | None = None
    _resized: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(
        cls,
        source: Picture,
        *,
        max_pixels: int = MAX_PIXELS,
        channels: int = 3,
        page: int = 0,
        digest: str | None = None,
    ) -> Self:
        """Decode and hash an image.

        Args:
            source: A path, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). If
                `channels` is not 1 or 3: a path, or a uint8 array (H, W, channels).
            max_pixels: Images with more pixels are rejected before they are decoded.
            channels: Number of input channels of the network.
            page: Page of a TIFF stack, counted from 0.
            digest: SHA-256 of the file; None: compute it.

        Raises:
            PictureError: If the image cannot be read, is too large, or has another number of
                channels.

        Examples:
            >>> array = np.zeros((2, 3, 3), np.uint8)
            >>> DecodedImage.read(array).image.size
            (3, 2)
        """
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        samples = None
        if channels not in (1, 3):
            samples = _samples(source, channels, max_pixels, page)
            image = Image.fromarray(_rgb_of(samples))
        elif path is not None and path.suffix.lower() == NPY:
            image = Image.fromarray(_samples(source, 3, max_pixels, page))
        else:
            image = read_image(source, max_pixels=max_pixels, page=page)
        if image is source:
            image = image.copy()
        if path is not None:
            return cls(image, digest or file_digest(path), samples)
        if samples is not None:
            check_size(image, "the array", max_pixels)
            content = f"{samples.shape}".encode() + samples.tobytes()
            return cls(image, hashlib.sha256(content).hexdigest(), samples)
        size = f"{image.width}x{image.height}".encode()
        return cls(image, hashlib.sha256(size + image.tobytes()).hexdigest())

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, read-only."""
        return np.asarray(self.image)

    def pixels(self, longer_side: int, channels: int) -> Tensor:
        """Resize the image for a network.

        The last result is cached for the next network with the same working size.

        Args:
            longer_side: Longer side of the result, in pixels.
            channels: 1 for greyscale, 3 for RGB, else the number of channels of `samples`.

        Returns:
            (1, channels, h, w) uint8.

        Raises:
            PictureError: If the image has another number of channels.
        """
        key = longer_side, channels
        pixels = self._resized.get(key)
        if pixels is None:
            if channels in (1, 3):
                mode = "RGB" if channels == 3 else "L"
                array = np.array(resize_image(self.image, longer_side).convert(mode))
            else:
                array = np.array(resize(self._checked_samples(channels), longer_side))
            pixels = torch.from_numpy(array).view(1, *array.shape[:2], -1).permute(0, 3, 1, 2)
            self._resized.clear()
            self._resized[key] = pixels
        return pixels

    def _checked_samples(self, channels: int) -> NDArray[np.uint8]:
        found = 3 if self.samples is None else self.samples.shape[2]
        if self.samples is None or found != channels:
            raise PictureError(
                f"the image has {count_of(found, 'channel')}, but the network expects {channels}"
            )
        return self.samples


def _samples(source: Picture, channels: int, max_pixels: int, page: int) -> NDArray[np.uint8]:
    """Read all channels, (H, W, C), of a file or an array."""
    if isinstance(source, str | os.PathLike):
        return read_channels(source, channels, max_pixels=max_pixels, page=page)
    if not isinstance(source, np.ndarray):
        raise PictureError(
            f"got {type(source).__name__}; expected a file or a uint8 array of shape "
            f"(H, W, {channels}), since the network has {channels} input channels"
        )
    shape = source.shape
    if source.dtype != np.uint8 or len(shape) != 3 or shape[2] != channels or 0 in shape:
        raise PictureError(
            f"got a {source.dtype} array of shape {shape}; expected uint8 of shape "
            f"(H, W, {channels}), since the network has {channels} input channels"
        )
    return source.copy()


def _rgb_of(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3): the first channels as red, green and blue; missing channels are 0."""
    missing = max(0, 3 - samples.shape[2])
    return np.ascontiguousarray(np.pad(samples[..., :3], ((0, 0), (0, 0), (0, missing))))


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
