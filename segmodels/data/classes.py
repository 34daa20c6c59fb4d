"""Class names and colours, as declared by the text files of a dataset."""

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
        names: Class names, in the order of the class ids.
        colors: Class id for each (r, g, b), 255 for void; None if no colours are declared.
    """

    names: list[str]
    colors: dict[Color, int] | None = None


def declared_classes(root: Path) -> Classes | None:
    """Read the classes that a dataset declares.

    The lines of classes.txt are `name` or `name r g b`, those of label_colors.txt `r g b name`.

    Args:
        root: Folder of the dataset.

    Returns:
        The classes, or None if neither file exists.

    Raises:
        DataError: If a file cannot be read, or its declarations are invalid.
    """
    names_file, colors_file = root / "classes.txt", root / "label_colors.txt"
    colored: list[tuple[str, Color]] = []
    if os.path.lexists(colors_file):
        colored = [_parse_rgb_name(line, colors_file) for line in read_lines(colors_file)]
    if not os.path.lexists(names_file):
        if not colored:
            return None
        return _checked_classes([name for name, _ in colored], dict(colored), colors_file)
    lines = read_lines(names_file)
    parsed = [_parse_name_rgb(line, names_file) for line in lines]
    entries = [entry for entry in parsed if entry is not None]
    if entries and len(entries) == len(lines):
        return _checked_classes([name for name, _ in entries], dict(entries), names_file)
    if entries and len(entries) > len(lines) // 2:
        odd = next(line for line, entry in zip(lines, parsed, strict=True) if entry is None)
        raise DataError(
            f"{names_file} has the line {shortened(odd)!r} without a colour; expected "
            "`name r g b`, as in the other lines"
        )
    return _checked_classes(lines, dict(colored) or None, names_file)


def read_lines(path: Path) -> list[str]:
    """Read the non-blank lines of a UTF-8 text file, stripped.

    Raises:
        DataError: If the file cannot be read, is too large or is not UTF-8.
    """
    try:
        with open_regular(path, "a UTF-8 text file") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except PictureError as error:
        if path.is_file() and path.stat().st_size == 0:
            return []
        raise DataError(f"{shortened(path)} cannot be read: {error}") from error
    if len(content) > MAX_TEXT_BYTES:
        raise DataError(
            f"{path} has more than {MAX_TEXT_BYTES >> 20} MiB; expected one name per line"
        )
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _checked_classes(names: Sequence[str], colors: dict[str, Color] | None, path: Path) -> Classes:
    """Check the declarations; if there are colours, names of void are not classes."""
    if colors is not None:
        names = [name for name in names if name.lower() not in VOID_NAMES]
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise DataError(f"{path} has {len(names)} class names; expected 1 to {IGNORE_INDEX}")
    longest = max(names, key=len)
    if len(longest) > MAX_NAME:
        raise DataError(
            f"{path} has a class name of {len(longest)} characters, {shortened(longest, 40)!r}; "
            f"expected one name per line, of at most {MAX_NAME} characters"
        )
    duplicates = sorted(name for name, times in Counter(names).items() if times > 1)
    if duplicates:
        raise DataError(
            f"{path} has duplicate class names: {', '.join(duplicates)}; class names must be unique"
        )
    if colors is None:
        return Classes(list(names))
    missing = [name for name in names if name not in colors]
    if missing:
        raise DataError(
            f"label_colors.txt has no colour for {', '.join(missing)}, listed in classes.txt"
        )
    color_ids: dict[Color, int] = {}
    for name, color in colors.items():
        if color in color_ids:
            raise DataError(f"{path} lists the colour {color} twice; colours must be unique")
        color_ids[color] = names.index(name) if name in names else IGNORE_INDEX
    return Classes(list(names), color_ids)


def _parse_rgb_name(line: str, path: Path) -> tuple[str, Color]:
    words = line.replace(",", " ").split(maxsplit=3)
    color = _parse_color(words[:3])
    if len(words) != 4 or color is None:
        raise DataError(
            f"{path} has the line {shortened(line)!r}; expected `r g b name`, with r, g and b from "
            "0 to 255"
        )
    return words[3].strip(), color


def _parse_name_rgb(line: str, path: Path) -> tuple[str, Color] | None:
    """Parse a line of classes.txt; None if it does not end in three numbers."""
    words = line.replace(",", " ").rsplit(maxsplit=3)
    if len(words) != 4 or not all(word.isdecimal() for word in words[1:]):
        return None
    color = _parse_color(words[1:])
    if color is None:
        raise DataError(
            f"{path} has the line {shortened(line)!r}; expected `name r g b`, with r, g and b from "
            "0 to 255"
        )
    return words[0].strip(), color


def _parse_color(words: Sequence[str]) -> Color | None:
    # `int` raises for more than 4,300 digits.
    if len(words) != 3 or not all(word.isdecimal() and len(word) <= 3 for word in words):
        return None
    r, g, b = (int(word) for word in words)
    return (r, g, b) if max(r, g, b) <= 255 else None
