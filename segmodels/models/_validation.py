"""Validation of the networks' arguments: types and bounds. The bounds exceed any practical use and
prevent a malicious config from exhausting memory."""

import unicodedata
from collections.abc import Sequence
from numbers import Real
from reprlib import repr as short
from typing import Any, TypeVar

MAX_CLASSES = 255  # class ids are bytes, and 255 is void
MAX_NAME_LENGTH = 200
MAX_IN_CHANNELS = 1024  # hyperspectral cameras have a few hundred
MAX_WORKING_SIZE = 100_000
# Bound of `image_mean` and `image_std`, so that normalised float32 pixels do not overflow.
LARGEST_STATISTIC = 1e6

Choice = TypeVar("Choice", int, str)


def checked_int(name: str, value: int, maximum: int) -> int:
    """Return `value`; raise ValueError unless it is an int from 1 to `maximum`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {short(value)}")
    if value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {short(value)}")
    return value


def checked_bool(name: str, value: bool) -> bool:
    """Return `value`; raise ValueError unless it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {short(value)}")
    return value


def checked_choice(name: str, value: Choice, choices: Sequence[Choice]) -> Choice:
    """Return `value`; raise ValueError unless it is one of the choices and has their type."""
    if type(value) is not type(choices[0]) or value not in choices:
        options = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {options}; got {short(value)}")
    return value


def checked_rate(name: str, value: float) -> float:
    """Return `value`; raise ValueError unless it is a number in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"{name} must be a number of at least 0 and less than 1, got {short(value)}"
        )
    return float(value)


def checked_class_names(class_names: Sequence[str]) -> list[str]:
    """Return `class_names`; raise ValueError unless they are 1 to 255 unique, non-empty strings of
    at most 200 characters without line breaks and control characters."""
    if not isinstance(class_names, list | tuple) or not all(
        isinstance(name, str) for name in class_names
    ):
        raise ValueError(f"class_names must be a list of str, got {short(class_names)}")
    if not 1 <= len(class_names) <= MAX_CLASSES:
        raise ValueError(f"class_names must have 1 to {MAX_CLASSES} names, got {len(class_names)}")
    for name in class_names:
        if not name.strip() or len(name) > MAX_NAME_LENGTH or not _is_one_line(name):
            raise ValueError(
                f"class_names must be 1 to {MAX_NAME_LENGTH} characters each, without line breaks "
                f"and control characters, got {short(name)}"
            )
    repeated = {name for name in class_names if list(class_names).count(name) > 1}
    if repeated:
        raise ValueError(
            f"class_names must be unique, got {short(sorted(repeated))} more than once"
        )
    return list(class_names)


def checked_palette(palette: Sequence[Sequence[int]], num_classes: int) -> list[list[int]]:
    """Return `palette`; raise ValueError unless it has [r, g, b] in 0..255 for each class."""
    try:
        colors = [list(color) for color in palette]
    except TypeError:
        colors = []
    if len(colors) != num_classes or not all(map(_is_color, colors)):
        raise ValueError(
            f"palette must have a colour [r, g, b] of ints in 0..255 for each of {num_classes} "
            f"classes, got {short(palette)}"
        )
    return [[int(value) for value in color] for color in colors]


def checked_statistic(
    name: str, values: Sequence[float], in_channels: int, minimum: float
) -> list[float]:
    """Return `values`; raise ValueError unless there is one in [minimum, 1e6] per channel."""
    try:
        numbers = list(values)
    except TypeError:
        numbers = []
    if len(numbers) != in_channels or not all(
        _is_number(value) and minimum <= value <= LARGEST_STATISTIC for value in numbers
    ):
        raise ValueError(
            f"{name} must have a number for each of {in_channels} channels, from {minimum:g} to "
            f"{LARGEST_STATISTIC:g}, got {short(values)}"
        )
    return [float(value) for value in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_color(color: list[Any]) -> bool:
    return len(color) == 3 and all(
        hasattr(value, "__index__") and not isinstance(value, bool) and 0 <= value <= 255
        for value in color
    )


def _is_one_line(name: str) -> bool:
    # Control characters, lone surrogates, line and paragraph separators.
    return not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}
