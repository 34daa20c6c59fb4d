"""Opening untrusted image files: bounded in time and memory, and nothing but images."""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data._tiff import TolerantTiff

# What Pillow reads by itself, those with an unmistakable beginning first. Left out are EPS and WMF
# (other programs would read them), IPTC (whatever is inside would be opened, EPS too), and BUFR,
# GRIB, HDF5 and MPEG, which Pillow names but cannot decode. HEIF needs pillow-heif.
FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "MCIDAS"),
    *("MSP", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "XVTHUMB"),
    *("TGA", "IM", "IMT", "PCD", "SPIDER"),
)
ACCEPTED = (
    "an image file (PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or another that Pillow decodes by "
    "itself), a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)"
)
MAX_PIXELS = 178_956_970  # as Pillow: above it a small file is taken for a decompression bomb

# Pillow decodes these in Python, about a microsecond a pixel.
SLOW_FORMATS = ("BLP", "DDS", "FITS", "QOI", "XPM")
MAX_SLOW_PIXELS = 4_000_000

# Cameras and editors stay far below. Each scan of a JPEG goes over the whole image, and Pillow
# takes quadratic time over many segments (JPEG) or comments (GIF).
MAX_JPEG_SCANS = 100
MAX_JPEG_SEGMENTS = 1000
MAX_GIF_BLOCKS = 10_000  # before the first frame
NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows has none
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
JPEG_MARKERS = np.ones(256, bool)  # what makes one of a preceding 255: no stuffed byte, no filling,
JPEG_MARKERS[[0, *range(0xD0, 0xD8), 255]] = False  # no restart marker
TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 259, 262  # tags, of which 1 is uncompressed and 6 YCbCr


HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
INSTALL_HEIF = (
    'HEIC (HEIF) images need pillow-heif: pip install "segmodels[heif]", or save the image as JPEG '
    "or PNG"
)


class PictureError(ValueError):
    """An image that cannot be used: what is wrong with it, and what is accepted."""


@contextmanager
def opened(
    path: Path,
    max_pixels: int,
    formats: Collection[str] = FORMATS,
    accepted: str = ACCEPTED,
) -> Iterator[Image.Image]:
    """Open an image file without decoding it.

    Args:
        path: A regular file, whatever its suffix.
        max_pixels: Refuse an image with more.
        formats: Those of FORMATS that are tried.
        accepted: What errors say was expected.

    Yields:
        The image, whose file is closed when the block ends.

    Raises:
        PictureError: If the file is no image, has too many pixels, or would take more time to
            decode than its size explains.
    """
    with open_regular(path, accepted) as file:
        image = _identified(file, path.name, formats, accepted)
        slow = image.format in SLOW_FORMATS and max_pixels > MAX_SLOW_PIXELS
        check_size(image, path.name, MAX_SLOW_PIXELS if slow else max_pixels)
        if image.format == "JPEG":
            _check_jpeg(file, path.name)
        elif isinstance(image, TiffImageFile):
            _correct_ycbcr_tiff(image)
        yield image


def open_regular(path: Path, accepted: str = ACCEPTED) -> BinaryIO:
    """Open a regular file that is not empty, for reading.

    Args:
        path: The file, or a link to it.
        accepted: What errors say was expected.

    Raises:
        PictureError: For a folder, a FIFO, a device, or a file that is missing or cannot be read.
    """
    try:
        # Opening a FIFO would wait for a writer, opening a device may do anything.
        _check_regular(path, path.stat(), accepted)
        file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115
        try:
            _check_regular(path, os.fstat(file.fileno()), accepted)
        except PictureError:  # it was replaced meanwhile
            file.close()
            raise
        return file
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {shortened(path)}; expected {accepted}") from error
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PictureError(
            f"{shortened(path.name)} cannot be read: {reason}; expected {accepted}"
        ) from error


def _open_nonblocking(name: str, flags: int) -> int:
    return os.open(name, flags | NONBLOCK)


def _check_regular(path: Path, status: os.stat_result, accepted: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{path} is a folder; expected {accepted}")
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(
            f"{path.name} is not a regular file but a device, pipe or socket; expected {accepted}"
        )
    if status.st_size == 0:
        raise PictureError(f"{path.name} is empty (0 bytes); expected {accepted}")


def shortened(text: object, length: int = 200) -> str:
    """The text, cut where it is longer than that."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[:length]}..."


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """PictureError for an image without pixels, or with more than `max_pixels`."""
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{name} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        kind = f" in {image.format}" if max_pixels == MAX_SLOW_PIXELS else ""
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.1f} megapixels; at most "
            f"{max_pixels / 1e6:.1f} are accepted{kind}: scale it down first"
        )


def _identified(file: BinaryIO, name: str, formats: Collection[str], accepted: str) -> Image.Image:
    """`Image.open` without the process-wide limit on pixels and its warning, and without mapping
    the file into memory, where one that shrinks meanwhile would end the process."""
    Image.init()
    prefix = file.read(16)
    is_heif = "HEIF" in formats and _is_heif(file, prefix) and not has_heif()
    failure: str | None = None
    for kind in () if is_heif else formats:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        if factory is None:
            continue
        claimed = False  # that the file is of this kind
        try:
            answer = accepts is None or accepts(prefix)
            if isinstance(answer, str):  # Pillow was built without what it needs for this kind
                failure = answer
            elif answer:
                claimed = accepts is not None
                if kind == "GIF":
                    _check_gif(file, name)
                file.seek(0)
                # A phone's MPO is a JPEG with more images behind it; the first is enough.
                return OWN_READERS.get(kind, factory)(file, "")
        except PictureError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them
            failure = failure or (f"{kind}: {error}" if claimed else None)
    if is_heif:
        raise PictureError(f"{name} cannot be read: {INSTALL_HEIF}")
    if failure:
        raise PictureError(
            f"{name} cannot be read, it is damaged, cut off or of a kind that is not supported "
            f"({failure}); expected {accepted}"
        )
    raise PictureError(f"{name} is not an image; expected {accepted}")


OWN_READERS = {"JPEG": JpegImageFile, "TIFF": TolerantTiff}


def _is_heif(file: BinaryIO, prefix: bytes) -> bool:
    """By the brands in the first box of ISO/IEC 23008-12; AVIF's are not among them."""
    if prefix[4:8] != b"ftyp":
        return False
    file.seek(0)
    box = file.read(min(256, int.from_bytes(prefix[:4])))
    brands = [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]
    return b"avif" not in brands and b"avis" not in brands and any(b in HEIF_BRANDS for b in brands)


def has_heif() -> bool:
    """Whether HEIF can be read, registering pillow-heif if it is installed."""
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _check_jpeg(file: BinaryIO, name: str) -> None:
    """A scan is a pass over the image (ITU-T T.81, annex B): a few bytes can ask for one more."""
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
                "segments, made to take time; save it again with an image editor"
            )


def _check_gif(file: BinaryIO, name: str) -> None:
    """Count the blocks (GIF89a, sections 20 to 26) that lie before the first frame."""
    file.seek(0)
    header = file.read(13)
    if len(header) == 13 and header[10] & 128:  # a global color table
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
                "made to take time; save it again with an image editor"
            )


def _correct_ycbcr_tiff(image: TiffImageFile) -> None:
    """Uncompressed YCbCr: Pillow's own decoder takes it for RGBX, libtiff reads it."""
    tags = image.tag_v2
    if tags.get(TIFF_COMPRESSION, 1) == 1 and tags.get(TIFF_PHOTOMETRIC) == 6:
        arguments = ("RGBX", "raw", False, tags.offset)
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, arguments)]
        image.use_load_libtiff = True


def is_lossless_webp(file: BinaryIO) -> bool:
    """Whether the (first) image of a WebP is coded without loss (RFC 9649)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # The chunks of a frame follow its 16 bytes of header.
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)
    return False
