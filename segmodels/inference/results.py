"""The result: a class for every pixel of a picture, and what is made from it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.utils.files import whole_file


@dataclass(frozen=True)
class LabeledImage:
    """One picture and a class for each of its pixels.

    image: the picture, RGB.
    class_map: (H, W) uint8 class ids.
    """

    image: Image.Image
    class_map: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, read-only; made when it is first asked for."""
        return np.asarray(self.image)

    def areas(self) -> dict[str, float]:
        """{class name: fraction of the picture}, largest first, absent classes (0.0) last."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind="stable")
        return {self.class_names[i]: float(counts[i] / self.class_map.size) for i in order}

    def indexed(self) -> Image.Image:
        """Palette image: pixel value = class id, with the palette's colours."""
        image = Image.fromarray(self.class_map, mode="P")
        image.putpalette(bytes(np.array(self.palette, np.uint8)))
        return image

    def colored(self) -> Image.Image:
        """RGB image in the palette's colours."""
        return self.indexed().convert("RGB")

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """RGB image of the colours over the picture; opacity 0 is the picture, 1 the colours."""
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must be from 0 to 1, got {opacity}")
        return Image.blend(self.image, self.colored(), opacity)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `indexed()` as a PNG, whatever the suffix: exact ids, palette embedded. The file is
        whole or not there."""
        save_png(self.indexed(), Path(path))


@dataclass(frozen=True)
class Segmentation(LabeledImage):
    """A network's answer, at the picture's own size, turned as its EXIF data says.

    make_confidence: what gives `confidence`.
    uncertainty: (H, W) float32, the variance of the class probabilities over the Monte Carlo
        samples, averaged over the classes (Bayesian SegNet, section 3); None without samples.
    note: what the user should know of how it came about ("Computed on the CPU: ..."), or None.
    """

    make_confidence: Callable[[], NDArray[np.float32]]
    uncertainty: NDArray[np.float32] | None = None
    note: str | None = None

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 in [0, 1], the winning class's probability; made when it is first asked
        for, which for a large picture takes as long as its class map."""
        return self.make_confidence()


def save_png(image: Image.Image, path: Path, *, fast: bool = False) -> None:
    """A PNG file that is whole or not there. fast: several times faster, and a little larger."""
    with whole_file(path) as scratch:
        image.save(scratch, format="PNG", compress_level=1 if fast else 6)
