"""Files that are no pictures, damaged, too large, or made to take time and memory."""

import contextlib
import os
import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from segmodels.data import _untrusted_images
from segmodels.data.image_io import PictureError, read_image_array

GREY = Image.new("L", (64, 48), 128)


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(folder, content, name="given.bin"):
    path = folder / name
    path.write_bytes(content)
    return path


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width, height):
    """A PNG that says it is so large, and has next to no data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    )


# ---- what is no picture ----


def test_a_file_that_is_no_picture_is_refused_by_its_name(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.jpg").write_text("not a picture")
    cases = {
        "empty.png": r"empty.png is empty \(0 bytes\); expected an image file \(PNG, JPEG, ",
        "notes.jpg": r"notes.jpg is not an image; expected an image file",
        "none.png": r"there is no file .*none.png; expected an image file",
        ".": "is a folder; expected an image file",
        "\0": "cannot be read: embedded null",
    }
    for name, message in cases.items():
        with pytest.raises(PictureError, match=message):
            read_image_array(f"{tmp_path}/{name}")


@pytest.mark.parametrize("kind", ["EPS", "PDF"])
def test_a_file_that_only_other_programs_read_is_refused(tmp_path, kind):
    path = write(tmp_path, encoded(Image.new("RGB", (4, 4)), kind), "page")
    with pytest.raises(PictureError, match=r"page is not an image"):  # Ghostscript is not started
        read_image_array(path)


def test_what_an_iptc_file_holds_is_not_opened(tmp_path):
    # Pillow would open the EPS inside, and start Ghostscript for it.
    fields = {(3, 60): b"\x01\x00", (3, 20): b"\x04", (3, 30): b"\x04", (3, 120): b"\x01"}
    content = b"".join(
        bytes([0x1C, *tag]) + struct.pack(">H", len(data)) + data
        for tag, data in [*fields.items(), ((8, 10), encoded(Image.new("L", (4, 4)), "EPS"))]
    )
    with pytest.raises(PictureError, match="is not an image"):
        read_image_array(write(tmp_path, content))


def test_a_kind_that_this_pillow_cannot_decode_says_so(tmp_path, monkeypatch):
    reason = "AVIF support not installed"
    monkeypatch.setitem(Image.OPEN, "AVIF", (Image.OPEN["AVIF"][0], lambda _: reason))
    path = write(tmp_path, encoded(GREY, "AVIF"))
    with pytest.raises(PictureError, match=rf"unsupported type \({reason}\)"):
        read_image_array(path)


def test_a_kind_that_a_plugin_brings_is_read(tmp_path, monkeypatch):
    class Plugin(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (2, 1), "L"
            self.tile = [ImageFile._Tile("raw", (0, 0, 2, 1), 12, "L")]

    monkeypatch.setitem(Image.OPEN, "HEIF", (Plugin, lambda prefix: prefix[4:12] == b"ftypheic"))
    path = write(tmp_path, b"\0\0\0\x0cftypheic\x07\x09", "phone.heic")
    assert read_image_array(path)[0].tolist() == [[7] * 3, [9] * 3]


# ---- too many pixels ----


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    def decode(_):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    path = write(tmp_path, png_of_size(12_000, 10_000), "bomb.png")  # Pillow would warn
    with pytest.raises(PictureError, match=r"12000 x 10000 = 120.0 megapixels; at most 100.0 are"):
        read_image_array(path, max_pixels=100_000_000)
    path = write(tmp_path, png_of_size(60_000, 60_000), "bomb.png")  # Pillow would refuse
    with pytest.raises(PictureError, match=r"bomb.png has .* 3600.0 megapixels; at most 179.0 are"):
        read_image_array(path)


def test_the_limit_may_be_above_pillows(tmp_path):
    path = write(tmp_path, png_of_size(20_000, 20_000))
    with pytest.raises(PictureError, match="damaged, truncated"):  # it has next to no data
        read_image_array(path, max_pixels=400_000_000)


def test_below_the_limit_pillows_warning_is_not_heard(tmp_path):
    path = write(tmp_path, png_of_size(10_000, 9_000))  # Pillow warns of more than 89.5 megapixels
    with pytest.raises(PictureError, match=r"damaged, truncated") as caught:
        read_image_array(path)
    assert "bomb" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_an_icon_with_a_larger_picture_than_it_says_is_refused(tmp_path):
    icon = bytearray(encoded(Image.new("RGB", (256, 256)), "ICO", sizes=[(256, 256)]))
    icon[6:8] = 16, 16  # the directory's width and height
    path = write(tmp_path, icon)
    with pytest.raises(PictureError, match=r"256 x 256 = 0.1 megapixels; at most 0.0"):
        read_image_array(path, max_pixels=1000)


def test_kinds_that_pillow_decodes_slowly_have_a_limit_of_their_own(tmp_path):
    def qoi(width, height):
        runs, rest = divmod(width * height, 62)
        return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + b"\xfd" * runs + b"\xfd" * rest

    with pytest.raises(PictureError, match=r"= 9.0 megapixels; at most 4.0 are accepted in QOI"):
        read_image_array(write(tmp_path, qoi(3000, 3000)))
    assert read_image_array(write(tmp_path, qoi(100, 50))).shape == (50, 100, 3)


# ---- made to take time ----


def progressive_jpeg(scans):
    """A JPEG whose last scan is repeated."""
    data = encoded(Image.new("L", (1500, 1500), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (1 + scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    # Each takes 75 bytes and goes over the whole picture: 30 MB would take hours.
    assert read_image_array(write(tmp_path, progressive_jpeg(10))).shape == (1500, 1500, 3)
    with pytest.raises(PictureError, match=r"JPEG with more than 100 scans .*; save it again"):
        read_image_array(write(tmp_path, progressive_jpeg(400_000)))


def test_what_follows_a_jpeg_is_not_counted(tmp_path):
    # Phones put a film behind the picture.
    data = encoded(GREY, "JPEG") + np.random.default_rng(0).bytes(10) + b"\xff\xda\0\2" * 500
    assert read_image_array(write(tmp_path, data)).shape == (48, 64, 3)


def test_a_thumbnail_in_a_jpeg_is_not_counted(tmp_path):
    thumbnail = b"Exif\0\0" + b"\xff\xda\0\2" * 500
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = encoded(GREY, "JPEG")
    assert read_image_array(write(tmp_path, data[:2] + segment + data[2:])).shape == (48, 64, 3)


def gif_with(blocks):
    data = encoded(GREY, "GIF")
    start = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 128 else 0)
    return data[:start] + blocks + data[start:]


def test_a_gif_of_many_comments_is_refused(tmp_path):
    # Pillow joins them one by one: quadratic time, a quarter of an hour for 30 MB.
    assert read_image_array(write(tmp_path, gif_with(b"!\xfe\x01a\0" * 100))).shape == (48, 64, 3)
    for blocks in (b"!\xfe\x01a\0" * 600_000, b"?!\xfe" + b"\x01a" * 600_000 + b"\0"):
        with pytest.raises(
            PictureError, match=r"GIF with more than 10000 blocks .*; save it again"
        ):
            read_image_array(write(tmp_path, gif_with(blocks)))


def test_compressed_texts_and_profiles_do_not_unfold_without_limit(tmp_path):
    bomb = zlib.compress(bytes(200_000_000))  # 194 KB
    start = encoded(GREY, "PNG")
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0")):
        path = write(tmp_path, start[:33] + chunk(kind, head + bomb) + start[33:])
        tracemalloc.start()
        with contextlib.suppress(PictureError):
            read_image_array(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000


def test_a_file_is_closed_again_whatever_it_holds(tmp_path):
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        return
    before = len(list(open_files.iterdir()))
    for content in (encoded(GREY, "PNG"), encoded(GREY, "PNG")[:60], b"nothing", gif_with(b"")):
        with contextlib.suppress(PictureError):
            read_image_array(write(tmp_path, content))
    assert len(list(open_files.iterdir())) == before


def test_the_limit_of_slow_kinds_names_kinds_that_are_read():
    assert set(_untrusted_images.SLOW_FORMATS) < set(_untrusted_images.FORMATS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(PictureError, match=rf"{name} is a device, pipe or socket, not a reg"):
            read_image_array(tmp_path / name)


def test_a_file_that_becomes_a_fifo_meanwhile_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, encoded(GREY, "PNG"))
    before = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda _, **__: before)
    with pytest.raises(PictureError, match="not a regular file"):
        read_image_array(path)


def test_a_path_longer_than_the_system_takes_is_refused_with_a_short_sentence(tmp_path):
    for path in (tmp_path / ("x" * 5000), Path("/".join(["y" * 200] * 40))):
        with pytest.raises(PictureError, match="File name too long") as caught:
            read_image_array(path)
        assert len(str(caught.value)) < 500
