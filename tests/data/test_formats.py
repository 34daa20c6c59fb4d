"""Files that Pillow alone does not decode correctly.

They are written byte by byte, and their colours are computed from the specification of the format.
"""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segmodels.data import _untrusted_images
from segmodels.data.image_folder import list_images
from segmodels.data.image_io import PictureError, read_image_array

random = np.random.default_rng(0)


def tiff(path, pages):
    """A little-endian TIFF 6.0. pages: [({tag: number, numbers}, [bytes of each strip])]."""
    content = b"II*\0" + bytes(4)
    link = 4
    for tags, strips in pages:
        offsets = []
        for strip in strips:
            offsets.append(len(content))
            content += strip + bytes(len(strip) % 2)
        tags = {259: 1, 273: offsets, 279: [len(strip) for strip in strips], **tags}
        entries = b""
        for tag, values in sorted(tags.items()):
            values = values if isinstance(values, list) else [values]
            data = struct.pack(f"<{len(values)}I", *values)
            if len(values) > 1:
                place, content = len(content), content + data
                data = struct.pack("<I", place)
            entries += struct.pack("<HHI", tag, 4, len(values)) + data
        content = content[:link] + struct.pack("<I", len(content)) + content[link + 4 :]
        link = len(content) + 2 + len(entries)
        content += struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(content)
    return path


def grey(values, bits, **more):
    """A page of grey values, as bytes of little-endian samples."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 262: 1, 277: 1, 278: height}
    return {**tags, **more}, [values.astype("<u2" if bits > 8 else "u1").tobytes()]


# ---- TIFF ----


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("predictor", [1, 2])
def test_16_bit_colors_in_separate_planes(tmp_path, compression, predictor):
    values = random.integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    strips = []
    for plane in np.moveaxis(values, 2, 0):
        if predictor == 2 and compression == 8:  # ignored without compression (TIFF 6.0, 14)
            plane = np.diff(plane, axis=1, prepend=np.uint16(0))
        data = plane.astype("<u2").tobytes()
        strips.append(zlib.compress(data) if compression == 8 else data)
    tags = {256: 5, 257: 7, 258: [16] * 3, 262: 2, 277: 3, 278: 7, 284: 2}
    tags |= {259: compression, 317: predictor}
    read = read_image_array(tiff(tmp_path / "a.tif", [(tags, strips)]))
    np.testing.assert_array_equal(read, np.floor(values / 257 + 0.5))


def test_a_palette_with_extra_samples(tmp_path):
    colors = random.integers(0, 256, (256, 3))
    samples = random.integers(0, 256, (6, 4, 2)).astype(np.uint8)
    tags = {256: 4, 257: 6, 258: [8, 8], 262: 3, 277: 2, 278: 6, 338: 0}
    tags[320] = (colors.T * 257).ravel().tolist()  # all reds, greens, blues, of 16 bits
    read = read_image_array(tiff(tmp_path / "a.tif", [(tags, [samples.tobytes()])]))
    np.testing.assert_array_equal(read, colors[samples[..., 0]])


def test_packed_12_bit_grey(tmp_path):
    # Two samples in three bytes, high bits first: 0x000 0xFFF 0x333 0x000.
    strip = bytes([0x00, 0x0F, 0xFF, 0x33, 0x30, 0x00])
    tags = {256: 4, 257: 1, 258: 12, 262: 1, 277: 1, 278: 1}
    read = read_image_array(tiff(tmp_path / "a.tif", [(tags, [strip])]))
    assert read[0, :, 0].tolist() == [0, 255, 51, 0]


# ---- JPEG 2000, AVIF, HEIC ----


def test_jpeg_2000_in_ycc(tmp_path):
    ycc = random.integers(0, 256, (16, 24, 3)).astype(np.uint8)
    path = tmp_path / "a.jp2"
    Image.fromarray(ycc).save(path, mct=0, irreversible=False)
    content = path.read_bytes()
    at = content.index(b"colr")
    assert content[at + 7 : at + 11] == struct.pack(">I", 16)  # sRGB
    path.write_bytes(content[: at + 7] + struct.pack(">I", 18) + content[at + 11 :])  # sYCC
    # ITU-R BT.601-7, with the offset of 128 of IEC 61966-2-1, annex F.
    y, cb, cr = (ycc[..., channel].astype(float) - (128, 0)[channel == 0] for channel in range(3))
    rgb = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]
    expected = np.stack(rgb, axis=2).clip(0, 255)
    np.testing.assert_allclose(read_image_array(path), expected, atol=1.5)


def avif_with_crop(content, clap):
    """The AVIF with a clean aperture property for its only item (ISO/IEC 14496-12, 12.1.4)."""

    def box(kind, data):
        return struct.pack(">I", len(data) + 8) + kind + data

    def split(data):
        found, at = [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4])
            found.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
            at += size
        return found

    top = dict(split(content))
    meta = dict(split(top[b"meta"][4:]))
    properties = split(meta[b"iprp"])
    known = split(dict(properties)[b"ipco"])
    ipma = bytearray(dict(properties)[b"ipma"])
    assert ipma[:4] == bytes(4)  # version 0, numbers of one byte
    assert int.from_bytes(ipma[4:8]) == 1  # one item
    ipma[10] += 1
    ipma += bytes([0x80 | (len(known) + 1)])  # essential
    new_ipco = b"".join(box(kind, data) for kind, data in known) + box(b"clap", clap)
    iprp = box(b"ipco", new_ipco) + box(b"ipma", bytes(ipma))
    grown = len(iprp) - len(meta[b"iprp"])
    meta[b"iprp"] = iprp
    iloc = bytearray(meta[b"iloc"])
    assert (iloc[0], iloc[4], iloc[5]) == (0, 0x44, 0)  # offset and length of 4 bytes
    place = 14  # after the count, the item's number, its data reference and its count of extents
    offset = int.from_bytes(iloc[place : place + 4]) + grown
    iloc[place : place + 4] = offset.to_bytes(4)
    meta[b"iloc"] = bytes(iloc)
    top[b"meta"] = bytes(4) + b"".join(box(kind, data) for kind, data in meta.items())
    return b"".join(box(kind, data) for kind, data in top.items())


def clap(width, height, x=(0, 1), y=(0, 1)):
    return struct.pack(">4I", width, 1, height, 1) + struct.pack(">iIiI", *x, *y)


@pytest.fixture
def avif(tmp_path):
    pixels = np.repeat(np.repeat(random.integers(0, 256, (4, 6, 3)), 8, 0), 8, 1).astype(np.uint8)
    path = tmp_path / "a.avif"
    Image.fromarray(pixels).save(path, quality=95, subsampling="4:4:4")
    return path


def test_the_crop_of_an_avif(avif):
    whole, content = read_image_array(avif), avif.read_bytes()
    assert whole.shape == (32, 48, 3)
    avif.write_bytes(avif_with_crop(content, clap(20, 16)))  # in the middle
    np.testing.assert_array_equal(read_image_array(avif), whole[8:24, 14:34])
    avif.write_bytes(avif_with_crop(content, clap(20, 16, (-14, 1), (16, 2))))  # left, bottom
    np.testing.assert_array_equal(read_image_array(avif), whole[16:32, 0:20])


@pytest.mark.parametrize("crop", [clap(64, 16), clap(19, 16), clap(20, 16, (1, 0))])
def test_a_crop_that_cannot_be_is_refused(avif, crop):
    avif.write_bytes(avif_with_crop(avif.read_bytes(), crop))
    with pytest.raises(PictureError, match="crop"):
        read_image_array(avif)


def heic(path):
    pillow_heif = pytest.importorskip("pillow_heif")
    colors = [[200, 30, 40], [20, 160, 60], [250, 240, 90]]
    pixels = np.repeat(np.repeat([colors], 16, 1), 48, 0).astype(np.uint8)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=95)
    return pixels


def test_heic_is_read_with_pillow_heif(tmp_path):
    pixels = heic(tmp_path / "a.heic")
    read = read_image_array(tmp_path / "a.heic")
    assert read.shape == pixels.shape
    assert np.percentile(np.abs(read.astype(int) - pixels), 80) <= 8  # the edges blur
    assert list_images(tmp_path).images == [tmp_path / "a.heic"]


def test_heic_without_pillow_heif_says_what_it_needs(tmp_path, monkeypatch):
    heic(tmp_path / "a.heic")
    monkeypatch.setattr(_untrusted_images, "has_heif", lambda: False)
    with pytest.raises(PictureError, match=r'pip install "segmodels\[heif\]"'):
        read_image_array(tmp_path / "a.heic")


# ---- GIF ----


def test_a_gif_whose_first_frame_is_smaller_than_its_canvas(tmp_path):
    # GIF89a: a canvas of 6 x 4 with background colour 1 (blue), a frame of 2 x 1 at (3, 2).
    frame = Image.new("P", (2, 1))
    frame.putpalette([255, 0, 0, 0, 0, 255])
    path = tmp_path / "a.gif"
    frame.save(path)
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<2H", 6, 4)
    content[11] = 1
    at = content.index(b",", 13 + (3 << ((content[10] & 7) + 1)))
    content[at + 1 : at + 5] = struct.pack("<2H", 3, 2)
    path.write_bytes(content)
    expected = np.full((4, 6, 3), 255)
    expected[2, 3:5] = (255, 0, 0)
    np.testing.assert_array_equal(read_image_array(path), expected)
