"""What the boxes of AVIF (ISO/IEC 14496-12, 23008-12) and JPEG 2000 (ISO/IEC 15444-1, annex I) say
of the image's colors and crop, where Pillow does not look."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

Box = tuple[bytes, int, int]  # type, start and end of the content

SRGB, GREY, SYCC = 16, 17, 18  # enumerated color spaces
READ_SPACES = (0, 12, 15, SRGB, GREY, SYCC)  # bi-level 0 and 15, CMYK 12
OPACITY = 1  # type of a channel


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places, in their order; ends where one is damaged."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind, head = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = end if size == 0 else start + size
        if stop < start + head or stop > end:
            return
        yield kind, start + head, stop
        start = stop


def _find(data: bytes, kind: bytes, start: int = 0, end: int | None = None) -> tuple[int, int]:
    """Start and end of the content of the first box of a type; KeyError if there is none."""
    for found, at, stop in boxes(data, start, end):
        if found == kind:
            return at, stop
    raise KeyError(kind)


# ---- AVIF ----


def clean_aperture(data: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The crop that an AVIF's primary item has, before any rotation.

    Args:
        data: Of the file.
        width, height: Of the whole image.

    Returns:
        (left, top, right, bottom), or None if there is no crop.

    Raises:
        ValueError: If it is not a rectangle of whole pixels in the image.
    """
    try:
        properties = _primary_properties(data)
    except (KeyError, IndexError):
        return None
    for kind, at, _ in properties:
        if kind == b"clap":
            return _crop(data[at : at + 32], width, height)
    return None


def _primary_properties(data: bytes) -> list[Box]:
    meta, meta_end = _find(data, b"meta")
    meta += 4  # version and flags
    at, _ = _find(data, b"pitm", meta, meta_end)
    primary = int.from_bytes(data[at + 4 : at + (6 if data[at] == 0 else 8)])
    at, end = _find(data, b"iprp", meta, meta_end)
    known = list(boxes(data, *_find(data, b"ipco", at, end)))
    for kind, start, stop in boxes(data, at, end):
        if kind == b"ipma":
            numbers = _associations(data[start:stop]).get(primary)
            if numbers is not None:
                return [known[number - 1] for number in numbers if number]
    return []


def _associations(ipma: bytes) -> dict[int, list[int]]:
    """{item: numbers of its properties, counted from 1}"""
    id_bytes = 2 if ipma[0] == 0 else 4
    number_bytes = 2 if ipma[3] & 1 else 1
    found: dict[int, list[int]] = {}
    at = 8
    for _ in range(int.from_bytes(ipma[4:8])):
        if at + id_bytes >= len(ipma):
            break
        item, count = int.from_bytes(ipma[at : at + id_bytes]), ipma[at + id_bytes]
        at += id_bytes + 1
        essential = 1 << (8 * number_bytes - 1)
        found[item] = [
            int.from_bytes(ipma[i : i + number_bytes]) & ~essential
            for i in range(at, at + count * number_bytes, number_bytes)
        ]
        at += count * number_bytes
    return found


def _crop(clap: bytes, width: int, height: int) -> tuple[int, int, int, int]:
    numbers = [
        int.from_bytes(clap[i : i + 4], signed=i >= 16 and i % 8 == 0) for i in range(0, 32, 4)
    ]
    if len(clap) < 32 or 0 in numbers[1::2]:
        raise ValueError("its crop (clap) is damaged")
    sides = [Fraction(numbers[i], numbers[i + 1]) for i in (0, 2)]
    offsets = [Fraction(numbers[i], numbers[i + 1]) for i in (4, 6)]
    corner = [
        (whole - side) / 2 + offset
        for whole, side, offset in zip((width, height), sides, offsets, strict=True)
    ]
    left, top = corner
    right, bottom = left + sides[0], top + sides[1]
    whole = all(value.denominator == 1 for value in (left, top, right, bottom))
    if not (whole and 0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError("its crop (clap) is no rectangle of whole pixels in the image")
    return int(left), int(top), int(right), int(bottom)


# ---- JPEG 2000 ----


@dataclass(frozen=True)
class Jp2Color:
    """What the header of a JP2 file says of its colors.

    Attributes:
        space: The enumerated color space, None if there is none.
        profile: The ICC profile in its place, if any.
        channels: Of each color, in the order that its space has them, and last of opacity, the
            number of the codestream's component; empty if they come in that order.
        has_alpha: Whether the last of them is opacity.
        depth: Bits of a component, None if they differ.
        codestream: Start and end of it in the file.
    """

    space: int | None
    profile: bytes | None
    channels: tuple[int, ...]
    has_alpha: bool
    depth: int | None
    codestream: tuple[int, int]


def jp2_color(data: bytes) -> Jp2Color | None:
    """None for a bare codestream, or a header that cannot be read."""
    try:
        header, end = _find(data, b"jp2h")
        codestream = _find(data, b"jp2c")
        at, _ = _find(data, b"ihdr", header, end)
    except KeyError:
        return None
    bits = data[at + 10]
    space: int | None = None
    profile: bytes | None = None
    channels: tuple[int, ...] = ()
    has_alpha = False
    for kind, at, stop in boxes(data, header, end):
        if kind == b"colr" and space is None and profile is None:
            if data[at] == 1:
                space = int.from_bytes(data[at + 3 : at + 7])
            elif data[at] in (2, 3):
                profile = data[at + 3 : stop]
        elif kind == b"cdef":
            channels, has_alpha = _channel_order(data[at:stop])
    depth = None if bits == 255 else (bits & 127) + 1
    return Jp2Color(space, profile, channels, has_alpha, depth, codestream)


def _channel_order(cdef: bytes) -> tuple[tuple[int, ...], bool]:
    entries = [
        tuple(int.from_bytes(cdef[at + i : at + i + 2]) for i in (0, 2, 4))
        for at in range(2, len(cdef) - 5, 6)
    ]
    colors = sorted((color, number) for number, kind, color in entries if kind == 0)
    alphas = [number for number, kind, _ in entries if kind == OPACITY]
    order = (*(number for _, number in colors), *alphas[:1])
    return (() if order == tuple(range(len(order))) else order), bool(alphas)
