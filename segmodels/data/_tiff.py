"""TIFF samples that Pillow does not read, or not right.

Pillow decodes 8-bit TIFFs of one plane well. It takes the high byte of 16-bit colors, garbles
separate planes of more than 8 bits, ignores that 0 may be white, and knows few numbers of channels.
Here the strips or tiles are decoded as plain bytes, which works for every lossless compression
that Pillow's libtiff has, and the samples are put together from them (TIFF 6.0 specification).
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
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}  # channels of each
SEPARATE_PLANES = 2
REDUCED, MASK = 1, 4  # bits of SUBFILE_TYPE: a page that is no image of its own
# Without loss, and decoded to bytes: none, LZW, deflate (three numbers), packbits, LZMA, ZSTD.
LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)
LOSSY = (6, 7, 33003, 33004, 33005, 34712, 34887, 34892, 50001, 50002, 52546)  # JPEG and the like
WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # libtiff ignores the tag with other compressions
KINDS = {1: "u", 2: "i", 3: "f"}  # of SAMPLE_FORMAT, as NumPy's
MAX_BYTES_PER_PIXEL = 16  # of the pixels that the caller accepts
MAX_PAGES = 10_000


class TiffError(ValueError):
    """A TIFF whose samples cannot be read."""


class TolerantTiff(TiffImageFile):
    """A TIFF that opens even where Pillow has no mode for its samples: `tile` is empty then."""

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


def needs_samples(image: TiffImageFile) -> bool:
    """Whether `read_samples` is to be used in place of Pillow's decoder."""
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
    """The samples of the image's present page, as they are stored.

    Args:
        image: Opened, its file still open.
        max_pixels: That the caller accepts, which bounds the memory too.

    Returns:
        (H, W, C) unsigned, signed or float, C counting extra samples; not turned by orientation.

    Raises:
        TiffError: If the samples are not of 8, 12, 16, 32 or 64 bits in a lossless compression.
    """
    tags = image.tag_v2
    width, height, count = tags[WIDTH], tags[LENGTH], tags.get(SAMPLES, 1)
    bits, kind = _sample_type(tags, count)
    if tags.get(COMPRESSION, 1) not in LOSSLESS:
        raise TiffError(f"samples of {bits} bits in a lossy or unknown compression")
    if width * height * count * bits > 8 * MAX_BYTES_PER_PIXEL * max_pixels:
        raise TiffError(f"{count} channels of {bits} bits, more than fit into memory")
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
    """How the bytes of a plane's rows make its samples.

    shape: (H, W, C). step: pixels after which the prediction of a row starts again, of a tile.
    """

    shape: tuple[int, int, int]
    bits: int
    type_: np.dtype
    predictor: int
    step: int

    def samples(self, rows: NDArray[np.uint8]) -> NDArray:
        if self.predictor == 3:
            return self._undo_float_predictor(rows)
        if self.bits == 12:
            samples = _unpack_12(rows, self.shape[1] * self.shape[2])
        else:
            samples = np.ascontiguousarray(rows).view(self.type_)
        samples = samples.astype(samples.dtype.newbyteorder("=")).reshape(self.shape)
        if self.predictor == 2:
            for left in range(0, self.shape[1], self.step):
                tile = samples[:, left : left + self.step]
                np.cumsum(tile, axis=1, dtype=tile.dtype, out=tile)  # wraps, as it is meant to
        return samples & 0xFFF if self.bits == 12 else samples

    def _undo_float_predictor(self, rows: NDArray[np.uint8]) -> NDArray:
        """Of each row (of a tile) the samples' most significant bytes come first, then the next,
        and each byte is the difference to that of the pixel before (Adobe Photoshop TIFF technical
        note 3)."""
        (height, width, channels), size = self.shape, self.type_.itemsize
        if self.step < width and width % self.step:
            raise TiffError("floating-point prediction in tiles that exceed the image")
        result = np.empty(self.shape, self.type_.newbyteorder("="))
        for left in range(0, width, self.step):
            part = rows[:, left * channels * size : (left + self.step) * channels * size]
            differences = part.reshape(height, -1, channels)
            planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(height, size, -1)
            values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
            result[:, left : left + self.step] = values.reshape(height, -1, channels)
        return result


def _sample_type(tags: Mapping[int, Any], count: int) -> tuple[int, str]:
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(formats) != 1 or not 1 <= count <= 1024:
        raise TiffError("channels of different kinds, or none, or more than 1024")
    size, kind = bits.pop(), KINDS.get(formats.pop(), "u")
    if size not in ((16, 32, 64) if kind == "f" else (8, 12, 16, 32, 64)):
        raise TiffError(f"{count} channels of {size} bits")
    return size, kind


def _plane_file(
    content: bytes, tags: Mapping[int, Any], plane: int, planes: int, pixel_bits: int
) -> BytesIO:
    """The file with another first page: one plane's strips or tiles as an 8-bit grey image whose
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
        places, sizes = TILE_OFFSETS, TILE_BYTES
    else:
        new[ROWS] = [min(tags.get(ROWS, tags[LENGTH]), tags[LENGTH])]
        places, sizes = STRIP_OFFSETS, STRIP_BYTES
    offsets = list(tags[places])
    lengths = list(tags.get(sizes, ()))
    if not lengths and tags.get(COMPRESSION, 1) == 1 and len(offsets) == planes:
        lengths = [new[WIDTH][0] * tags[LENGTH]] * planes
    each = len(offsets) // planes
    if not each or len(lengths) != len(offsets):
        raise TiffError("no table of its strips or tiles")
    new[places] = offsets[plane * each : (plane + 1) * each]
    new[sizes] = lengths[plane * each : (plane + 1) * each]
    return BytesIO(_with_first_page(content, new))


def _with_first_page(content: bytes, tags: dict[int, list[int]]) -> bytes:
    """A TIFF or BigTIFF with a page of these tags in front of its own."""
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
    """Two samples in three bytes, high bits first."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).astype(np.uint16)
    first, second, third = padded[:, 0::3], padded[:, 1::3], padded[:, 2::3]
    pairs = np.stack([first << 4 | second >> 4, (second & 15) << 8 | third], axis=2)
    return pairs.reshape(len(rows), -1)[:, :count]


def pages(image: TiffImageFile) -> Iterator[int]:
    """Numbers of the pages that are images: no thumbnails, pyramid levels or masks. The image is
    left at the first."""
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
    """The value that stands for white, if bits per sample or the largest value declare it."""
    tags = image.tag_v2
    bits = max(tags.get(BITS, (1,)))
    if 8 < bits < 16:
        return (1 << bits) - 1
    largest = tags.get(MAX_SAMPLE)
    largest = max(largest) if isinstance(largest, tuple) else largest
    is_depth = isinstance(largest, int) and largest >= 255 and largest & (largest + 1) == 0
    return largest if is_depth else None


def orientation_of(image: TiffImageFile) -> int:
    """EXIF's, 1 to 8, before Pillow has loaded the image, which turns it and forgets."""
    value = image.tag_v2.get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def palette_of(image: TiffImageFile) -> NDArray[np.uint8]:
    """(N, 3) colors of the indices."""
    colors = np.array(image.tag_v2[COLOR_MAP], np.uint32).reshape(3, -1).T
    shift = 8 if colors.max() > 255 else 0  # some writers keep 8 bits
    return (colors >> shift).astype(np.uint8)
