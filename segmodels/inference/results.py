"""Segmentation results: class maps, overlays, and PNG files with metadata."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segmodels.utils.files import atomic_write
from segmodels.utils.palette import is_background
from segmodels.version import __version__

METADATA_PREFIX = "segmodels:"  # prefix of this package's text entries in PNG files


@dataclass(frozen=True)
class LabeledImage:
    """An image with its class map.

    Attributes:
        image: The image, RGB.
        class_map: (H, W) uint8 class ids.
        class_names: The classes in the order of their ids.
        palette: [r, g, b] in 0..255 for each class.
    """

    image: Image.Image
    class_map: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, read-only; computed on first access."""
        return np.asarray(self.image)

    def areas(self) -> dict[str, float]:
        """{class name: fraction of the image}, largest first, absent classes (0.0) last."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind="stable")
        return {self.class_names[i]: float(counts[i] / self.class_map.size) for i in order}

    def classes(self) -> list[dict[str, Any]]:
        """{"id", "name", "color": [r, g, b]} for each class, JSON-compatible."""
        named = zip(self.class_names, self.palette, strict=True)
        return [{"id": i, "name": name, "color": color} for i, (name, color) in enumerate(named)]

    def indexed(self) -> Image.Image:
        """Palette image: pixel value = class id, with the palette's colours."""
        image = Image.fromarray(self.class_map)
        image.putpalette(bytes(np.array(self.palette, np.uint8)))
        return image

    def colored(self) -> Image.Image:
        """RGB image in the palette's colours."""
        return self.indexed().convert("RGB")

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Blend the colours over the image; a class named "background" is transparent.

        Args:
            opacity: Opacity of the colours, from 0 to 1.

        Returns:
            An RGB image.

        Raises:
            ValueError: If `opacity` is not in [0, 1].
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must be from 0 to 1, got {opacity}")
        overlay = Image.blend(self.image, self.colored(), opacity)
        background = [i for i, name in enumerate(self.class_names) if is_background(name)]
        if background:
            transparent = np.isin(self.class_map, background)
            overlay.paste(self.image, mask=Image.fromarray(transparent))
        return overlay

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: Mapping[str, str] | None = None,
        replace: bool = True,
    ) -> None:
        """Write `indexed()` as a PNG with embedded palette and `classes()` in its metadata.

        Args:
            path: The file, written atomically; always a PNG, regardless of the suffix.
            metadata: Further text entries by name, for example about the origin of the result.
            replace: Whether to replace an existing file.

        Raises:
            FileExistsError: If the file exists and `replace` is False.
        """
        entries = {"classes": json.dumps(self.classes(), ensure_ascii=False)} | dict(metadata or {})
        save_png(self.indexed(), Path(path), metadata=entries, replace=replace)


@dataclass(frozen=True)
class Segmentation(LabeledImage):
    """The result of a network, at the size of the image, upright according to EXIF.

    Attributes:
        make_confidence: Function that computes `confidence`.
        uncertainty: (H, W) float32, the variance of the class probabilities over the Monte Carlo
            samples, averaged over the classes (Bayesian SegNet, section 3); None without samples.
        note: Message for the user about how the result was computed, such as "Segmented on the CPU
            because GPU memory ran out."; None if there is nothing to report.
    """

    make_confidence: Callable[[], NDArray[np.float32]]
    uncertainty: NDArray[np.float32] | None = None
    note: str | None = None

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 in [0, 1]: the probability of the predicted class. Computed on first
        access; for large images, this takes as long as the class map."""
        return self.make_confidence()


def save_png(
    image: Image.Image,
    path: Path,
    *,
    fast: bool = False,
    metadata: Mapping[str, str] | None = None,
    replace: bool = True,
) -> None:
    """Write a PNG file atomically.

    Args:
        image: The image.
        path: The file.
        fast: Use a lower compression level: several times faster, slightly larger files.
        metadata: Text entries by name, for `read_metadata`.
        replace: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `replace` is False.
    """
    texts = PngInfo()
    for name, text in ({"software": __version__} | dict(metadata or {})).items():
        texts.add_itxt(METADATA_PREFIX + name, text)
    with atomic_write(path, replace=replace) as scratch:
        image.save(scratch, format="PNG", compress_level=1 if fast else 6, pnginfo=texts)


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries that `save_png` wrote to a file, by name; empty for other files."""
    if not path.is_file():
        return {}
    try:
        with Image.open(path, formats=["PNG"]) as image:  # does not decode the pixels
            entries = dict(image.info)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}
    return {
        name.removeprefix(METADATA_PREFIX): str(text)
        for name, text in entries.items()
        if isinstance(name, str) and name.startswith(METADATA_PREFIX)
    }
