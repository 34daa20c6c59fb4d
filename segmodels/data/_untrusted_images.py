"""Opening of untrusted image files, with limits on formats, time and memory."""

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

# Formats that Pillow decodes without other programs; those with unambiguous signatures come first.
# Excluded are EPS and WMF (decoded by other programs), IPTC (a container whose content would be
# opened, even EPS), and BUFR, GRIB, HDF5 and MPEG (recognized by Pillow, but not decoded). HEIF
# requires pillow-heif.
FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "MCIDAS"),
    *("MSP", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "XVTHUMB"),
    *("TGA", "IM", "IMT", "PCD", "SPIDER"),
)
ACCEPTED = (
    "an image file (PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or another format that Pillow decodes), "
    "a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)"
)
MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs

# Pillow decodes these in Python, at about one microsecond per pixel.
SLOW_FORMATS = ("BLP", "DDS", "FITS", "QOI", "XPM")
MAX_SLOW_PIXELS = 4_000_000

# Files from cameras and editors stay far below these limits. Each scan of a JPEG covers the whole
# image, and Pillow takes quadratic time for many segments (JPEG) or comments (GIF).
MAX_JPEG_SCANS = 100
MAX_JPEG_SEGMENTS = 1000
MAX_GIF_BLOCKS = 10_000  # before the first frame
NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # not on Windows
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
# Bytes that form a marker after a byte 255: not stuffing (0), restart markers or padding (255).
JPEG_MARKERS = np.ones(256, bool)
JPEG_MARKERS[[0, *range(0xD0, 0xD8), 255]] = False
TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 259, 262  # tags
UNCOMPRESSED, YCBCR = 1, 6  # their values
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
INSTALL_HEIF = (
    'HEIC (HEIF) images require pillow-heif: pip install "segmodels[heif]", or save the image as '
    "JPEG or PNG"
)


class PictureError(ValueError):
    """An image cannot be used; the message says what is wrong and what is accepted."""


@contextmanager
def open_image(
    path: Path,
    max_pixels: int,
    formats: Collection[str] = FORMATS,
    accepted: str = ACCEPTED,
) -> Iterator[Image.Image]:
    """Open an image file without decoding it.

    Args:
        path: A regular file with any suffix; the format is detected from its content.
        max_pixels: Images with more pixels are rejected.
        formats: Names of the formats, as in FORMATS, that are accepted.
        accepted: Description of the accepted input, for messages.

    Yields:
        The image; its file is closed at the end of the block.

    Raises:
        PictureError: If the file is not an image, has too many pixels, or is crafted to take
            excessive time to decode.
    """
    with open_regular(path, accepted) as file:
        image = _identify(file, path.name, formats, accepted)
        slow = image.format in SLOW_FORMATS and max_pixels > MAX_SLOW_PIXELS
        check_size(image, path.name, MAX_SLOW_PIXELS if slow else max_pixels)
        if image.format == "JPEG":
            _check_jpeg(file, path.name)
        elif isinstance(image, TiffImageFile):
            _correct_ycbcr_tiff(image)
        yield image


def open_regular(path: Path, accepted: str = ACCEPTED) -> BinaryIO:
    """Open a non-empty regular file for reading.

    Args:
        path: The file, or a link to it.
        accepted: Description of the accepted input, for messages.

    Raises:
        PictureError: If the file is missing, empty or unreadable, or is a folder, FIFO or device.
    """
    try:
        # Checked before opening: a FIFO would block, and opening a device may have side effects.
        _check_regular(path, path.stat(), accepted)
        file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115
        try:
            _check_regular(path, os.fstat(file.fileno()), accepted)
        except PictureError:  # it was replaced in the meantime
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
            f"{path.name} is a device, pipe or socket, not a regular file; expected {accepted}"
        )
    if status.st_size == 0:
        raise PictureError(f"{path.name} is empty (0 bytes); expected {accepted}")


def shortened(text: object, length: int = 200) -> str:
    """Truncate a text to the given number of characters, followed by "..."."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[:length]}..."


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise PictureError if an image has no pixels or more than `max_pixels`."""
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{name} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        kind = f" in {image.format}" if max_pixels == MAX_SLOW_PIXELS else ""
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.1f} megapixels; at most "
            f"{max_pixels / 1e6:.1f} are accepted{kind}: scale it down first"
        )


def _identify(file: BinaryIO, name: str, formats: Collection[str], accepted: str) -> Image.Image:
    """Detect the format and open the image without decoding it.

    Unlike `Image.open`, this neither applies Pillow's process-wide pixel limit nor maps the file
    into memory; a mapped file that shrinks would crash the process.
    """
    Image.init()
    prefix = file.read(16)
    is_heif = "HEIF" in formats and _is_heif(file, prefix) and not has_heif()
    failure: str | None = None
    for kind in () if is_heif else formats:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        if factory is None:
            continue
        has_signature = False  # of this format
        try:
            accepted_prefix = accepts is None or accepts(prefix)
            if isinstance(accepted_prefix, str):  # Pillow was built without the decoder
                failure = accepted_prefix
            elif accepted_prefix:
                has_signature = accepts is not None
                if kind == "GIF":
                    _check_gif(file, name)
                file.seek(0)
                return READER_OVERRIDES.get(kind, factory)(file, "")
        except PictureError:
            raise
        except Exception as error:  # Pillow raises various types for damaged files
            failure = failure or (f"{kind}: {error}" if has_signature else None)
    if is_heif:
        raise PictureError(f"{name} cannot be read: {INSTALL_HEIF}")
    if failure:
        raise PictureError(
            f"{name} cannot be read: it is damaged, truncated or of an unsupported type "
            f"({failure}); expected {accepted}"
        )
    raise PictureError(f"{name} is not an image; expected {accepted}")


# Pillow's factory for JPEG also reads the further images of an MPO, which are not needed.
READER_OVERRIDES = {"JPEG": JpegImageFile, "TIFF": TolerantTiff}


def _is_heif(file: BinaryIO, prefix: bytes) -> bool:
    """Whether the first box lists a HEIF brand (ISO/IEC 23008-12), but not one of AVIF."""
    if prefix[4:8] != b"ftyp":
        return False
    file.seek(0)
    box = file.read(min(256, int.from_bytes(prefix[:4])))
    brands = [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]
    return b"avif" not in brands and b"avis" not in brands and any(b in HEIF_BRANDS for b in brands)


def has_heif() -> bool:
    """Register pillow-heif if it is installed, and return whether HEIF can be read."""
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _check_jpeg(file: BinaryIO, name: str) -> None:
    """Limit the number of scans and segments (ITU-T T.81, annex B).

    Each scan is a pass over the whole image, but takes only a few bytes in the file.
    """
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    values = np.frombuffer(data, np.uint8)
    follows = np.flatnonzero(values[:-1] == 255) + 1
    markers = follows[JPEG_MARKERS[values[follows]]]  # those in thumbnails are skipped below
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
                f"{name} is a JPEG with more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} "
                "segments, which takes too long to decode; save it again with an image editor"
            )


def _check_gif(file: BinaryIO, name: str) -> None:
    """Limit the number of blocks before the first frame (GIF89a, sections 20 to 26)."""
    file.seek(0)
    header = file.read(13)
    if len(header) == 13 and header[10] & 128:  # skip the global colour table
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
                f"{name} is a GIF with more than {MAX_GIF_BLOCKS} blocks before its first frame, "
                "which takes too long to decode; save it again with an image editor"
            )


def _correct_ycbcr_tiff(image: TiffImageFile) -> None:
    """Have libtiff decode uncompressed YCbCr, which Pillow's own decoder reads as RGBX."""
    tags = image.tag_v2
    is_uncompressed = tags.get(TIFF_COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED
    if is_uncompressed and tags.get(TIFF_PHOTOMETRIC) == YCBCR:
        arguments = ("RGBX", "raw", False, tags.offset)
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, arguments)]
        image.use_load_libtiff = True


def is_lossless_webp(file: BinaryIO) -> bool:
    """Whether the (first) image of a WebP file is compressed losslessly (RFC 9649)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # The chunks of an animation frame follow a header of 16 bytes.
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)
    return False
