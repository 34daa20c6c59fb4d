"""Opening picture files that nobody vouches for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

# What Pillow reads by itself, those with an unmistakable beginning first. Left out are EPS and WMF
# (other programs would read them), IPTC (whatever is inside would be opened, EPS too), and BUFR,
# GRIB, HDF5 and MPEG, which Pillow names but cannot decode. HEIF is there once a plugin brings it.
FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "MCIDAS"),
    *("MSP", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "XVTHUMB"),
    *("TGA", "IM", "IMT", "PCD", "SPIDER"),
)
ACCEPTED = (
    "a picture file (PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or another that Pillow decodes by "
    "itself), a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)"
)
MAX_PIXELS = 178_956_970  # as Pillow: above it a small file is taken for a decompression bomb

# Pillow decodes these in Python, about a microsecond a pixel.
SLOW_FORMATS = ("BLP", "DDS", "FITS", "QOI", "XPM")
MAX_SLOW_PIXELS = 4_000_000

# Cameras and editors stay far below. Each scan of a JPEG goes over the whole picture, and Pillow
# takes quadratic time over many segments (JPEG) or comments (GIF).
MAX_JPEG_SCANS = 100
MAX_JPEG_SEGMENTS = 1000
MAX_GIF_BLOCKS = 10_000  # before the first frame
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
JPEG_MARKERS = np.ones(256, bool)  # what makes one of a preceding 255: no stuffed byte, no filling,
JPEG_MARKERS[[0, *range(0xD0, 0xD8), 255]] = False  # no restart marker
TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 259, 262  # tags, of which 1 is uncompressed and 6 YCbCr


class PictureError(ValueError):
    """A picture that cannot be used: what is wrong with it, and what is accepted."""


@contextmanager
def opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet. Raises PictureError for what is none, for one of more
    than `max_pixels`, and for one whose decoding its size would not explain."""
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder; expected {ACCEPTED}")
        if path.stat().st_size == 0:
            raise PictureError(f"{path.name} is empty (0 bytes); expected {ACCEPTED}")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}; expected {ACCEPTED}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path.name} cannot be read: {error}; expected {ACCEPTED}") from error
    with file:
        image = _identified(file, path.name)
        slow = image.format in SLOW_FORMATS and max_pixels > MAX_SLOW_PIXELS
        check_size(image, path.name, MAX_SLOW_PIXELS if slow else max_pixels)
        if image.format == "JPEG":
            _check_jpeg(file, path.name)
        elif isinstance(image, TiffImageFile):
            _mend_tiff(image)
        yield image


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{name} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        kind = f" in {image.format}" if max_pixels == MAX_SLOW_PIXELS else ""
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.1f} megapixels; at most "
            f"{max_pixels / 1e6:.1f} are accepted{kind}: scale it down first"
        )


def _identified(file: BinaryIO, name: str) -> Image.Image:
    """`Image.open` without the process-wide limit on pixels and its warning, and without mapping
    the file into memory, where one that shrinks meanwhile would end the process."""
    Image.init()
    prefix = file.read(16)
    failure: str | None = None
    for kind in FORMATS:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        if factory is None:
            continue
        claimed = False  # that the file is of this kind
        try:
            accepted = accepts is None or accepts(prefix)
            if isinstance(accepted, str):  # Pillow was built without what it needs for this kind
                failure = accepted
            elif accepted:
                claimed = accepts is not None
                if kind == "GIF":
                    _check_gif(file, name)
                file.seek(0)
                # A phone's MPO is a JPEG with more pictures behind it; the first is enough.
                return JpegImageFile(file, "") if kind == "JPEG" else factory(file, "")
        except PictureError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them
            failure = failure or (f"{kind}: {error}" if claimed else None)
    if failure:
        raise PictureError(
            f"{name} cannot be read, it is damaged, cut off or of a kind that is not supported "
            f"({failure}); expected {ACCEPTED}"
        )
    raise PictureError(f"{name} is not a picture; expected {ACCEPTED}")


def _check_jpeg(file: BinaryIO, name: str) -> None:
    """A scan is a pass over the picture (ITU-T T.81, annex B): a few bytes can ask for one more."""
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    values = np.frombuffer(data, np.uint8)
    follows = np.flatnonzero(values[:-1] == 255) + 1
    markers = follows[JPEG_MARKERS[values[follows]]]  # thumbnails' too, which are jumped over
    scans, segments, offset = 0, 0, 2
    while (place := np.searchsorted(markers, offset + 1)) < len(markers):
        at = int(markers[place])
        if data[at] == END_OF_IMAGE:
            return
        offset = at + 1 + max(2, int.from_bytes(data[at + 1 : at + 3]))
        segments += 1
        scans += data[at] == START_OF_SCAN
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise PictureError(
                f"{name} is a JPEG of more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} "
                "segments, made to take time; save it anew with a picture editor"
            )


def _check_gif(file: BinaryIO, name: str) -> None:
    """Count the blocks (GIF89a, sections 20 to 26) that lie before the first frame."""
    file.seek(0)
    header = file.read(13)
    if len(header) == 13 and header[10] & 128:  # a global colour table
        file.seek(3 << ((header[10] & 7) + 1), 1)
    blocks = 0
    while (kind := file.read(1)) not in (b",", b";", b""):
        blocks += 1
        if kind == b"!":
            file.read(1)
            while (size := file.read(1)) not in (b"\0", b"") and blocks <= MAX_GIF_BLOCKS:
                file.seek(size[0], 1)
                blocks += 1
        if blocks > MAX_GIF_BLOCKS:
            raise PictureError(
                f"{name} is a GIF of more than {MAX_GIF_BLOCKS} blocks before its first frame, "
                "made to take time; save it anew with a picture editor"
            )


def _mend_tiff(image: TiffImageFile) -> None:
    """Uncompressed YCbCr: Pillow's own decoder takes it for RGBX, libtiff reads it."""
    tags = image.tag_v2
    if tags.get(TIFF_COMPRESSION, 1) == 1 and tags.get(TIFF_PHOTOMETRIC) == 6:
        arguments = ("RGBX", "raw", False, tags.offset)
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, arguments)]
        image.use_load_libtiff = True
