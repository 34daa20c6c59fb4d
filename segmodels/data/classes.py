"""The classes of a dataset, as its text files declare them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmodels.data._untrusted_images import open_regular, shortened
from segmodels.data.image_io import PictureError
from segmodels.data.labels import IGNORE_INDEX, Color, DataError

VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore")
MAX_TEXT_BYTES = 64 << 20
MAX_NAME = 200  # characters


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
        names: In the order of the ids.
        colors: The id of each color, 255 for void; None if no colors are declared.
    """

    names: list[str]
    colors: dict[Color, int] | None = None


def declared_classes(root: Path) -> Classes | None:
    """Read classes.txt (`name` or `name r g b` a line) and label_colors.txt (`r g b name`).

    Returns:
        None if there is neither.

    Raises:
        DataError: For a file that cannot be read, or a declaration that cannot be.
    """
    names_file, colors_file = root / "classes.txt", root / "label_colors.txt"
    colored: list[tuple[str, Color]] = []
    if os.path.lexists(colors_file):
        colored = [_color_first(line, colors_file) for line in lines_of(colors_file)]
    if not os.path.lexists(names_file):
        if not colored:
            return None
        return _classes([name for name, _ in colored], dict(colored), colors_file)
    lines = lines_of(names_file)
    split_lines = [_color_last(line, names_file) for line in lines]
    found = [entry for entry in split_lines if entry is not None]
    if found and len(found) == len(lines):
        return _classes([name for name, _ in found], dict(found), names_file)
    if found and len(found) > len(lines) // 2:
        odd = next(line for line, entry in zip(lines, split_lines, strict=True) if entry is None)
        raise DataError(
            f"{names_file} has {shortened(odd)!r} among lines of `name r g b`; it lacks its color"
        )
    return _classes(lines, dict(colored) or None, names_file)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped. DataError if it cannot be read."""
    try:
        with open_regular(path, "a text file, UTF-8") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except PictureError as error:
        if path.is_file() and path.stat().st_size == 0:
            return []
        raise DataError(f"{shortened(path)} cannot be read: {error}") from error
    if len(content) > MAX_TEXT_BYTES:
        raise DataError(
            f"{path} has more than {MAX_TEXT_BYTES >> 20} MiB; expected a list, a name a line"
        )
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _classes(names: Sequence[str], colors: dict[str, Color] | None, path: Path) -> Classes:
    if colors is not None:
        names = [name for name in names if name.lower() not in VOID_NAMES]
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise DataError(f"{path} has {len(names)} class names; expected 1 to {IGNORE_INDEX}")
    longest = max(names, key=len)
    if len(longest) > MAX_NAME:
        raise DataError(
            f"{path} has a class name of {len(longest)} characters, {shortened(longest, 40)!r}; "
            f"expected a name a line, of at most {MAX_NAME}"
        )
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"{path} has {', '.join(twice)} twice; class names must differ")
    if colors is None:
        return Classes(list(names))
    lacking = [name for name in names if name not in colors]
    if lacking:
        raise DataError(f"label_colors.txt has no color for {', '.join(lacking)} of classes.txt")
    of_colors: dict[Color, int] = {}
    for name, color in colors.items():
        if color in of_colors:
            raise DataError(f"{path} gives the color {color} twice; each class needs its own")
        of_colors[color] = names.index(name) if name in names else IGNORE_INDEX
    return Classes(list(names), of_colors)


def _color_first(line: str, path: Path) -> tuple[str, Color]:
    words = line.replace(",", " ").split(maxsplit=3)
    color = _color(words[:3])
    if len(words) != 4 or color is None:
        raise DataError(
            f"{path} has the line {shortened(line)!r}; expected `r g b name`, each of 0 to 255"
        )
    return words[3].strip(), color


def _color_last(line: str, path: Path) -> tuple[str, Color] | None:
    """None for a line that does not end in three numbers."""
    words = line.replace(",", " ").rsplit(maxsplit=3)
    if len(words) != 4 or not all(word.isdecimal() for word in words[1:]):
        return None
    color = _color(words[1:])
    if color is None:
        raise DataError(
            f"{path} has the line {shortened(line)!r}; expected `name r g b`, each of 0 to 255"
        )
    return words[0].strip(), color


def _color(words: Sequence[str]) -> Color | None:
    # Python refuses to convert numbers of more than 4,300 digits.
    if len(words) != 3 or not all(word.isdecimal() and len(word) <= 3 for word in words):
        return None
    r, g, b = (int(word) for word in words)
    return (r, g, b) if max(r, g, b) <= 255 else None
