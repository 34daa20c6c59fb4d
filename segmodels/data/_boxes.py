"""Boxes of AVIF (ISO/IEC 14496-12 and 23008-12) and JPEG 2000 (ISO/IEC 15444-1, annex I) files.

They declare the crop of an AVIF image and the colours of a JPEG 2000 image, which Pillow ignores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

Box = tuple[bytes, int, int]  # type, start and end of the payload

SRGB, GREY, SYCC = 16, 17, 18  # enumerated colour spaces
SUPPORTED_SPACES = (0, 12, 15, SRGB, GREY, SYCC)  # 0 and 15: bi-level, 12: CMYK
OPACITY = 1  # channel type


def iter_boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Iterate over the boxes between two offsets; stops at a damaged box."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind, header = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = end if size == 0 else start + size
        if stop < start + header or stop > end:
            return
        yield kind, start + header, stop
        start = stop


def _find_box(data: bytes, kind: bytes, start: int = 0, end: int | None = None) -> tuple[int, int]:
    """Start and end of the payload of the first box of a type. KeyError if there is none."""
    for found, at, stop in iter_boxes(data, start, end):
        if found == kind:
            return at, stop
    raise KeyError(kind)


# ---- AVIF ----


def clean_aperture(data: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Read the crop of an AVIF's primary item, which precedes any rotation.

    Args:
        data: Content of the file.
        width: Width of the uncropped image in pixels.
        height: Height of the uncropped image in pixels.

    Returns:
        (left, top, right, bottom) in pixels, or None if there is no crop.

    Raises:
        ValueError: If the crop is damaged or not a rectangle of whole pixels within the image.
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
    meta, meta_end = _find_box(data, b"meta")
    meta += 4  # version and flags
    at, _ = _find_box(data, b"pitm", meta, meta_end)
    primary = int.from_bytes(data[at + 4 : at + (6 if data[at] == 0 else 8)])
    at, end = _find_box(data, b"iprp", meta, meta_end)
    properties = list(iter_boxes(data, *_find_box(data, b"ipco", at, end)))
    for kind, start, stop in iter_boxes(data, at, end):
        if kind == b"ipma":
            indices = _associations(data[start:stop]).get(primary)
            if indices is not None:
                return [properties[index - 1] for index in indices if index]
    return []


def _associations(ipma: bytes) -> dict[int, list[int]]:
    """Parse an "ipma" box: {item id: indices of its properties, counted from 1}."""
    id_bytes = 2 if ipma[0] == 0 else 4
    index_bytes = 2 if ipma[3] & 1 else 1
    found: dict[int, list[int]] = {}
    at = 8
    for _ in range(int.from_bytes(ipma[4:8])):
        if at + id_bytes >= len(ipma):
            break
        item, count = int.from_bytes(ipma[at : at + id_bytes]), ipma[at + id_bytes]
        at += id_bytes + 1
        essential = 1 << (8 * index_bytes - 1)
        found[item] = [
            int.from_bytes(ipma[i : i + index_bytes]) & ~essential
            for i in range(at, at + count * index_bytes, index_bytes)
        ]
        at += count * index_bytes
    return found


def _crop(clap: bytes, width: int, height: int) -> tuple[int, int, int, int]:
    """Parse a "clap" box: size of the crop, and offset of its center from that of the image."""
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
        raise ValueError("its crop (clap) is not a rectangle of whole pixels within the image")
    return int(left), int(top), int(right), int(bottom)


# ---- JPEG 2000 ----


@dataclass(frozen=True)
class Jp2Color:
    """Color specification in the header of a JP2 file.

    Attributes:
        space: Enumerated colour space, or None.
        profile: ICC profile in place of `space`, or None.
        channels: Index of the codestream component for each colour, in the order of the colour
            space, followed by the index for opacity; empty if the components are in that order.
        has_alpha: Whether the last channel is opacity.
        depth: Bits per component, None if they differ.
        codestream: Start and end offset of the codestream in the file.
    """

    space: int | None
    profile: bytes | None
    channels: tuple[int, ...]
    has_alpha: bool
    depth: int | None
    codestream: tuple[int, int]


def jp2_color(data: bytes) -> Jp2Color | None:
    """Read the colour specification of a JP2 file.

    Returns:
        None for a bare codestream, or if the header is incomplete.
    """
    try:
        header, end = _find_box(data, b"jp2h")
        codestream = _find_box(data, b"jp2c")
        at, _ = _find_box(data, b"ihdr", header, end)
    except KeyError:
        return None
    bits = data[at + 10]
    space: int | None = None
    profile: bytes | None = None
    channels: tuple[int, ...] = ()
    has_alpha = False
    for kind, at, stop in iter_boxes(data, header, end):
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
    """Parse a "cdef" box: `Jp2Color.channels` and `Jp2Color.has_alpha`."""
    entries = [
        tuple(int.from_bytes(cdef[at + i : at + i + 2]) for i in (0, 2, 4))
        for at in range(2, len(cdef) - 5, 6)
    ]
    colors = sorted((color, index) for index, kind, color in entries if kind == 0)
    alphas = [index for index, kind, _ in entries if kind == OPACITY]
    order = (*(index for _, index in colors), *alphas[:1])
    return (() if order == tuple(range(len(order))) else order), bool(alphas)
