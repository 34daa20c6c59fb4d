"""An image that is decoded and hashed once, however many networks and views take it."""

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

from segmodels.data.image_io import MAX_PIXELS, Picture, read_image, resize_image


@dataclass(frozen=True)
class DecodedImage:
    """An image as `Segmenter` and `compare` take it in place of a path, PIL image or array.

    Attributes:
        image: RGB, upright as EXIF says; not to be changed.
        digest: SHA-256, in hex, of the file or, for what is no file, of the size and the pixels.
    """

    image: Image.Image
    digest: str
    _resized: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, source: Picture, *, max_pixels: int = MAX_PIXELS) -> Self:
        """Decode and hash an image.

        Args:
            source: A path, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
            max_pixels: Refuse, before decoding, an image with more.

        Raises:
            PictureError: If it is not a readable image, or too large.

        Examples:
            >>> array = np.zeros((2, 3, 3), np.uint8)
            >>> DecodedImage.read(array).image.size
            (3, 2)
        """
        image = read_image(source, max_pixels=max_pixels)
        if image is source:
            image = image.copy()
        if isinstance(source, str | os.PathLike):
            return cls(image, file_digest(Path(source)))
        size = f"{image.width}x{image.height}".encode()
        return cls(image, hashlib.sha256(size + image.tobytes()).hexdigest())

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, read-only."""
        return np.asarray(self.image)

    def pixels(self, longer_side: int, mode: str) -> Tensor:
        """(1, C, h, w) uint8 at that size, of mode "RGB" or "L". The last one is kept, for the next
        network of the same working size."""
        key = longer_side, mode
        pixels = self._resized.get(key)
        if pixels is None:
            array = np.array(resize_image(self.image, longer_side).convert(mode))
            pixels = torch.from_numpy(array).view(1, *array.shape[:2], -1).permute(0, 3, 1, 2)
            self._resized.clear()
            self._resized[key] = pixels
        return pixels


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
