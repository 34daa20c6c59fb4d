"""Decoding of TIFF samples that Pillow does not decode, or decodes incorrectly.

Pillow handles 8-bit TIFFs with a single plane. It keeps only the high byte of 16-bit colours,
garbles separate planes of more than 8 bits, ignores WhiteIsZero with several channels, and supports
few numbers of channels. This module has Pillow's libtiff decode the strips or tiles to plain bytes,
which works for every lossless compression, and assembles the samples from these bytes according to
the TIFF 6.0 specification.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

# Tags
SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, SAMPLES, ROWS, STRIP_BYTES = 266, 270, 273, 277, 278, 279
ORIENTATION, MAX_SAMPLE, PLANAR, PREDICTOR, COLOR_MAP = 274, 281, 284, 317, 320
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}  # number of channels
SEPARATE_PLANES = 2
REDUCED, MASK = 1, 4  # bits of SUBFILE_TYPE: pages that are not images of their own
# None, LZW, deflate (two codes), PackBits, LZMA and ZSTD.
LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)
LOSSY = (6, 7, 33003, 33004, 33005, 34712, 34887, 34892, 50001, 50002, 52546)  # JPEG, WebP, ...
WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # libtiff ignores the tag with other compressions
KINDS = {1: "u", 2: "i", 3: "f"}  # SAMPLE_FORMAT -> kind of NumPy dtype
MAX_BYTES_PER_PIXEL = 16  # memory limit, with the caller's limit for the number of pixels
MAX_PAGES = 10_000


class TiffError(ValueError):
    """The samples of a TIFF cannot be read."""


class TolerantTiff(TiffImageFile):
    """TIFF reader that also opens files for whose samples Pillow has no mode; `tile` is then
    empty."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except (SyntaxError, KeyError) as error:
            width, height = self.tag_v2.get(WIDTH), self.tag_v2.get(LENGTH)
            if not (isinstance(width, int) and isinstance(height, int)):
                raise SyntaxError("missing dimensions") from error
            self._size = self._tile_size = (width, height)
            self._mode, self.tile = "L", []
            self._planar_configuration, self._compression = 1, "unknown"


def needs_sample_decoding(image: TiffImageFile) -> bool:
    """Whether `read_samples` must be used instead of Pillow's decoder."""
    tags = image.tag_v2
    if not image.tile:
        return True
    if tags.get(COMPRESSION, 1) not in LOSSLESS or tags.get(PHOTOMETRIC, 0) not in COLORS:
        return False
    several = tags.get(SAMPLES, 1) > 1
    return (
        max(tags.get(BITS, (1,))) > 8
        or set(tags.get(SAMPLE_FORMAT, (1,))) - {1, 4} != set()
        or (several and tags.get(PLANAR, 1) == SEPARATE_PLANES)
        or (several and tags.get(PHOTOMETRIC) in (PALETTE, WHITE_IS_ZERO))
    )


def read_samples(image: TiffImageFile, max_pixels: int) -> NDArray:
    """Read the samples of the current page, as stored.

    Args:
        image: An image whose file is open.
        max_pixels: Limit for the number of pixels, which also limits the memory.

    Returns:
        (H, W, C) unsigned or signed integers or floats, where C includes extra samples; the
        orientation is not applied.

    Raises:
        TiffError: If the samples do not have 8, 12, 16, 32 or 64 bits, are not compressed
            losslessly, or are too large.
    """
    tags = image.tag_v2
    width, height, count = tags[WIDTH], tags[LENGTH], tags.get(SAMPLES, 1)
    bits, kind = _sample_type(tags, count)
    if tags.get(COMPRESSION, 1) not in LOSSLESS:
        raise TiffError(f"unsupported compression of {bits}-bit samples")
    if width * height * count * bits > 8 * MAX_BYTES_PER_PIXEL * max_pixels:
        raise TiffError(f"{count} channels of {bits} bits are too large for the memory")
    planes = count if tags.get(PLANAR, 1) == SEPARATE_PLANES else 1
    channels = count // planes
    file = image.fp
    assert file is not None
    file.seek(0)
    content = file.read()
    order = ">" if tags.prefix == b"MM" else "<"
    layout = _Layout(
        (height, width, channels),
        bits,
        np.dtype(f"{order}{kind}{(bits + 7) // 8}"),
        tags.get(PREDICTOR, 1) if tags.get(COMPRESSION, 1) in WITH_PREDICTOR else 1,
        tags.get(TILE_WIDTH, width),
    )
    planes_of_samples = []
    for plane in range(planes):
        decoded = TiffImageFile(_plane_file(content, tags, plane, planes, channels * bits), "")
        decoded.load()
        planes_of_samples.append(layout.samples(np.asarray(decoded)))
    return np.concatenate(planes_of_samples, axis=2)


@dataclass(frozen=True)
class _Layout:
    """Layout of the samples in a plane's rows of bytes.

    Attributes:
        shape: (H, W, C).
        bits: Bits per sample.
        dtype: Data type of the stored samples.
        predictor: 1 (none), 2 (horizontal differences) or 3 (floating point).
        tile_width: Number of pixels after which the predictor restarts.
    """

    shape: tuple[int, int, int]
    bits: int
    dtype: np.dtype
    predictor: int
    tile_width: int

    def samples(self, rows: NDArray[np.uint8]) -> NDArray:
        if self.predictor == 3:
            return self._undo_float_predictor(rows)
        if self.bits == 12:
            samples = _unpack_12(rows, self.shape[1] * self.shape[2])
        else:
            samples = np.ascontiguousarray(rows).view(self.dtype)
        samples = samples.astype(samples.dtype.newbyteorder("=")).reshape(self.shape)
        if self.predictor == 2:
            for left in range(0, self.shape[1], self.tile_width):
                tile = samples[:, left : left + self.tile_width]
                np.cumsum(tile, axis=1, dtype=tile.dtype, out=tile)  # wraps around as intended
        return samples & 0xFFF if self.bits == 12 else samples

    def _undo_float_predictor(self, rows: NDArray[np.uint8]) -> NDArray:
        """Undo the floating-point predictor (Adobe Photoshop TIFF technical note 3).

        Each row of a tile stores the most significant bytes of all samples first, then the next
        ones and so on; each byte is the difference from that of the previous pixel.
        """
        (height, width, channels), size = self.shape, self.dtype.itemsize
        if self.tile_width < width and width % self.tile_width:
            raise TiffError("unsupported floating-point predictor with partial tiles")
        result = np.empty(self.shape, self.dtype.newbyteorder("="))
        for left in range(0, width, self.tile_width):
            part = rows[:, left * channels * size : (left + self.tile_width) * channels * size]
            differences = part.reshape(height, -1, channels)
            planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(height, size, -1)
            values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
            result[:, left : left + self.tile_width] = values.reshape(height, -1, channels)
        return result


def _sample_type(tags: Mapping[int, Any], count: int) -> tuple[int, str]:
    """Bits per sample and kind of NumPy dtype."""
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(formats) != 1 or not 1 <= count <= 1024:
        raise TiffError("unsupported channels: expected 1 to 1024 of the same type")
    size, kind = bits.pop(), KINDS.get(formats.pop(), "u")
    if size not in ((16, 32, 64) if kind == "f" else (8, 12, 16, 32, 64)):
        raise TiffError(f"unsupported depth: {count} channels of {size} bits")
    return size, kind


def _plane_file(
    content: bytes, tags: Mapping[int, Any], plane: int, planes: int, pixel_bits: int
) -> BytesIO:
    """Prepend a page that presents one plane's strips or tiles as an 8-bit greyscale image, whose
    pixels are the bytes of the samples."""

    def in_bytes(pixels: int) -> int:
        return (pixels * pixel_bits + 7) // 8

    new = {
        WIDTH: [in_bytes(tags[WIDTH])],
        LENGTH: [tags[LENGTH]],
        BITS: [8],
        COMPRESSION: [tags.get(COMPRESSION, 1)],
        PHOTOMETRIC: [BLACK_IS_ZERO],
        FILL_ORDER: [tags.get(FILL_ORDER, 1)],
        SAMPLES: [1],
        PREDICTOR: [1],
    }
    if TILE_OFFSETS in tags:
        new[TILE_WIDTH] = [in_bytes(tags[TILE_WIDTH])]
        new[TILE_LENGTH] = [tags[TILE_LENGTH]]
        offsets_tag, lengths_tag = TILE_OFFSETS, TILE_BYTES
    else:
        new[ROWS] = [min(tags.get(ROWS, tags[LENGTH]), tags[LENGTH])]
        offsets_tag, lengths_tag = STRIP_OFFSETS, STRIP_BYTES
    offsets = list(tags[offsets_tag])
    lengths = list(tags.get(lengths_tag, ()))
    if not lengths and tags.get(COMPRESSION, 1) == 1 and len(offsets) == planes:
        lengths = [new[WIDTH][0] * tags[LENGTH]] * planes
    count = len(offsets) // planes
    if not count or len(lengths) != len(offsets):
        raise TiffError("missing or inconsistent offsets of its strips or tiles")
    new[offsets_tag] = offsets[plane * count : (plane + 1) * count]
    new[lengths_tag] = lengths[plane * count : (plane + 1) * count]
    return BytesIO(_with_first_page(content, new))


def _with_first_page(content: bytes, tags: dict[int, list[int]]) -> bytes:
    """Insert a page with the given tags before the first page of a TIFF or BigTIFF."""
    order = ">" if content[:2] == b"MM" else "<"
    is_big = struct.unpack(order + "H", content[2:4])[0] == 43
    number, kind, width = ("Q", 16, 8) if is_big else ("I", 4, 4)
    start = len(content) + -len(content) % 8
    entry_bytes = 4 + 2 * width
    values_at = start + (8 if is_big else 2) + entry_bytes * len(tags) + width
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{number}", *numbers)
        if len(numbers) > 1:
            place = values_at + len(values)
            values += data
            data = struct.pack(order + number, place)
        entries += struct.pack(f"{order}HH{number}", tag, kind, len(numbers)) + data
    count = struct.pack(order + ("Q" if is_big else "H"), len(tags))
    page = count + entries + bytes(width) + values
    at = 8 if is_big else 4
    head = content[:at] + struct.pack(order + number, start) + content[at + width :]
    return head.ljust(start, b"\0") + page


def _unpack_12(rows: NDArray[np.uint8], count: int) -> NDArray[np.uint16]:
    """Unpack samples of 12 bits: two samples in three bytes, high bits first."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).astype(np.uint16)
    first, second, third = padded[:, 0::3], padded[:, 1::3], padded[:, 2::3]
    pairs = np.stack([first << 4 | second >> 4, (second & 15) << 8 | third], axis=2)
    return pairs.reshape(len(rows), -1)[:, :count]


def pages(image: TiffImageFile) -> Iterator[int]:
    """Iterate over the numbers of full-size pages, without thumbnails, pyramid levels and masks.

    Afterwards, the image is at its first page.
    """
    number = 0
    try:
        while number < MAX_PAGES:
            image.seek(number)
            if not image.tag_v2.get(SUBFILE_TYPE, 0) & (REDUCED | MASK):
                yield number
            number += 1
    except EOFError:
        pass
    finally:
        image.seek(0)


def declared_white(image: TiffImageFile) -> int | None:
    """Value of white, if BitsPerSample or MaxSampleValue declares it."""
    tags = image.tag_v2
    bits = max(tags.get(BITS, (1,)))
    if 8 < bits < 16:
        return (1 << bits) - 1
    largest = tags.get(MAX_SAMPLE)
    largest = max(largest) if isinstance(largest, tuple) else largest
    is_depth = isinstance(largest, int) and largest >= 255 and largest & (largest + 1) == 0
    return largest if is_depth else None


def orientation_of(image: TiffImageFile) -> int:
    """Orientation, 1 to 8, of an image that is not loaded yet: Pillow applies and removes it."""
    value = image.tag_v2.get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def palette_of(image: TiffImageFile) -> NDArray[np.uint8]:
    """Palette as (N, 3) RGB colours."""
    colors = np.array(image.tag_v2[COLOR_MAP], np.uint32).reshape(3, -1).T
    shift = 8 if colors.max() > 255 else 0  # some writers store 8 instead of 16 bits
    return (colors >> shift).astype(np.uint8)
