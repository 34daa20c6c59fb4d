"""Label pictures: class ids, colours or 0/255 masks -> class ids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IGNORE_INDEX = 255
Color = tuple[int, int, int]


class DataError(ValueError):
    """A data set that cannot be used: which file, what it holds and what was expected."""


@dataclass(frozen=True)
class LabelEncoding:
    """What the pixels of label pictures say.

    num_classes: ids are 0 to num_classes - 1. void_ids: values that stand for no class.
    colors: the id, or 255 for void, that each (r, g, b) stands for in RGB pictures; None: none do.
    by_palette: palette pictures are read by their palette's colours too, not as ids.
    binary: 255 is the second of two classes, and there is no void.
    """

    num_classes: int
    void_ids: tuple[int, ...] = (IGNORE_INDEX,)
    colors: Mapping[Color, int] | None = None
    by_palette: bool = False
    binary: bool = False

    def describe(self) -> str:
        if self.binary:
            return "0/255 masks"
        return "class ids" if self.colors is None else "colours or class ids"

    def read(self, path: Path) -> NDArray[np.uint8]:
        """(H, W) class ids, void as 255. DataError for a file or a value that cannot be used."""
        pixels = _pixels(path, as_colors=self.by_palette)
        if pixels.ndim == 3:
            return self._ids_of_colors(pixels, path)
        if self.binary:
            _check_values(path, pixels, (pixels != 0) & (pixels != 255), "0 and 255 alone")
            return (pixels == 255).astype(np.uint8)
        pixels[np.isin(pixels, self.void_ids)] = IGNORE_INDEX
        expected = (
            f"0 to {self.num_classes - 1} (the {self.num_classes} lines of classes.txt) or "
            f"{IGNORE_INDEX} for void"
        )
        unknown = (pixels >= self.num_classes) & (pixels != IGNORE_INDEX)
        _check_values(path, pixels, unknown, expected)
        return pixels

    def _ids_of_colors(self, pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        if self.colors is None:
            raise DataError(
                f"{path} is a picture of colours, and no colours are declared: write the lines of "
                "classes.txt as `name r g b`, or save class ids, 8-bit grey or palette"
            )
        codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        known = {r << 16 | g << 8 | b: class_id for (r, g, b), class_id in self.colors.items()}
        table = np.array(sorted(known), np.int32)
        places = np.searchsorted(table, codes).clip(max=len(table) - 1)
        unknown = table[places] != codes
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            raise DataError(
                f"{path} has the colour {tuple(pixels[y, x].tolist())} at x = {x}, y = {y} "
                f"({unknown.sum()} pixels of undeclared colours in all); declare it in classes.txt "
                f"or label_colors.txt, as `void` if it stands for no class{_hint(path)}"
            )
        return np.array([known[code] for code in table.tolist()], np.uint8)[places]


def are_binary(paths: Iterable[Path]) -> bool:
    """Whether the label pictures hold 0 and 255 alone, and both. Files that cannot be read are
    left out."""
    seen: set[int] = set()
    for path in paths:
        try:
            pixels = _pixels(path, as_colors=False)
        except DataError:
            continue
        if pixels.ndim == 3:
            return False
        seen |= set(np.unique(pixels).tolist())
        if not seen <= {0, 255}:
            return False
    return seen == {0, 255}


def _pixels(path: Path, as_colors: bool) -> NDArray[np.uint8]:
    """(H, W) values or (H, W, 3) colours; colours that are all grey are values. as_colors: of a
    palette picture take the colours."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode in ("L", "1") or (mode == "P" and not as_colors):
                return np.array(image, dtype=np.uint8)
            if mode in ("P", "RGB", "RGBA", "LA", "PA"):
                pixels = np.array(image.convert("RGBA"))[..., :3]
                grey = not as_colors and bool((pixels == pixels[..., :1]).all())
                return pixels[..., 0].copy() if grey else pixels
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise DataError(f"{path} cannot be read as a label: {error}") from error
    raise DataError(
        f"{path} has mode {mode}; expected a picture of class ids, 8-bit grey or palette, or of "
        "colours, RGB"
    )


def _check_values(
    path: Path, pixels: NDArray[np.uint8], unknown: NDArray[np.bool_], expected: str
) -> None:
    if unknown.any():
        values = np.unique(pixels[unknown]).tolist()
        some = str(values) if len(values) <= 10 else f"{str(values[:10])[:-1]}, ...]"
        raise DataError(f"{path} has ids {some}; expected {expected}{_hint(path)}")


def _hint(path: Path) -> str:
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    return "; JPEG changes values: save labels as PNG" if lossy else ""
