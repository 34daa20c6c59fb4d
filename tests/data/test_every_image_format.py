"""Every kind of file and every mode that Pillow writes: read right, and survived when damaged."""

import contextlib
import tracemalloc
import warnings
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ExifTags, Image

from segmodels.data.image_io import PictureError, read_image_array
from tests.data.test_orientation import TURNS

Image.init()
HEIGHT, WIDTH = 48, 64
# Three fields of colour: what a lossy format keeps of them is close to what was saved.
FIELDS = np.repeat(np.repeat([[[200, 30, 40], [20, 160, 60], [250, 240, 90]]], 22, 1), HEIGHT, 0)
PICTURE = Image.fromarray(FIELDS[:, :WIDTH].astype(np.uint8))

UNREADABLE = {"EPS", "PALM", "PDF"}  # other programs' formats, and what Pillow only writes
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F", "I;16")
VARIANTS = {
    "BLP": [{"blp_version": "BLP1"}, {"blp_version": "BLP2"}],
    "DDS": [{}, {"pixel_format": "DXT1"}, {"pixel_format": "DXT5"}],
    "JPEG": [{}, {"progressive": True}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}],
    "ICO": [{"sizes": [(WIDTH, HEIGHT)]}, {"sizes": [(WIDTH, HEIGHT)], "bitmap_format": "bmp"}],
    "WEBP": [{"lossless": True}, {"quality": 90}],
    "PNG": [{}, {"optimize": True}],
}
ANIMATED = {"AVIF", "GIF", "MPO", "PNG", "TIFF", "WEBP"}
# More than 8 bits a channel: where the writer keeps them.
DEEP = {"I": {"PNG", "PPM", "TIFF"}, "I;16": {"JPEG2000", "PNG", "TIFF"}, "F": {"PPM", "TIFF"}}
# What Pillow's writers change: the dots of a small 1-bit icon for macOS are scaled, a palette in it
# is lost; SPIDER holds one channel of floats and takes indices and colours for them.
OTHERWISE = {("ICNS", "1"), ("ICNS", "P"), *(("SPIDER", m) for m in MODES if m not in ("1", "L"))}


def in_mode(mode):
    """PICTURE in a mode, as exact as the mode allows."""
    if mode in ("I", "I;16"):
        deep = np.array(PICTURE.convert("L")).astype(np.int32) * 257
        return Image.fromarray(deep if mode == "I" else deep.astype(np.uint16))
    if mode == "F":
        return Image.fromarray(np.array(PICTURE.convert("L")).astype(np.float32) / 255)
    if mode in ("P", "PA"):
        return PICTURE.quantize(8).convert(mode)
    if mode == "LAB":
        # CIELAB (D50) of the three colours, a and b + 128, computed by the CIE's formulas.
        lab = np.array([[[112, 192, 170], [147, 76, 169], [239, 119, 199]]], np.uint8)
        lab = np.repeat(np.repeat(lab, 22, 1), HEIGHT, 0)[:, :WIDTH]
        return Image.merge("LAB", [Image.fromarray(band) for band in np.moveaxis(lab, 2, 0)])
    return PICTURE.convert(mode)


@cache
def corpus():
    """(kind, mode, options, content of the file) of everything that this Pillow writes."""
    files = []
    for kind in sorted(set(Image.SAVE) - UNREADABLE):
        variants = VARIANTS.get(kind, [{}])
        frames = {"save_all": True, "append_images": [Image.new("RGB", PICTURE.size, "blue")]}
        for mode in MODES:
            animated = kind in ANIMATED and mode in ("P", "RGB", "RGBA")
            for options in [*variants, frames] if animated else variants:
                file = BytesIO()
                with warnings.catch_warnings(), contextlib.suppress(Exception):
                    warnings.simplefilter("ignore")
                    in_mode(mode).save(file, kind, **options)  # not every kind has every mode
                    files.append((kind, mode, options, file.getvalue()))
    return files


def expected(mode):
    """(H, W, 3) of what PICTURE is in a mode."""
    if mode == "1":
        return np.array(PICTURE.convert("1").convert("RGB"))
    grey = mode in ("L", "LA", "I", "F", "I;16")
    return np.array(PICTURE.convert("L").convert("RGB") if grey else PICTURE)


def test_the_corpus_has_what_pillow_writes():
    kinds = {kind for kind, *_ in corpus()}
    assert {"AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF"} <= kinds
    assert {"BLP", "DDS", "DIB", "ICNS", "IM", "MSP", "PCX", "QOI", "SGI", "TGA", "XBM"} <= kinds
    assert len(corpus()) > 130


@pytest.mark.parametrize("kind", sorted(set(Image.SAVE) - UNREADABLE - {"BUFR", "GRIB", "HDF5"}))
def test_every_mode_that_a_kind_holds_is_read_right(kind, tmp_path):
    path = tmp_path / "picture"  # no suffix: what counts is the content
    for _, mode, options, content in [file for file in corpus() if file[0] == kind]:
        if (kind, mode) in OTHERWISE or kind not in DEEP.get(mode, {kind}):
            continue
        path.write_bytes(content)
        picture = read_image_array(path)
        wanted = expected(mode)
        if kind == "XBM":  # a set bit is black (X11), Pillow writes white ones
            wanted = 255 - wanted
        if kind == "ICNS":  # icons have fixed sizes; this one is scaled to 1024 x 1024
            assert picture.shape == (1024, 1024, 3)
            picture = np.array(Image.fromarray(picture).resize((WIDTH, HEIGHT)))
        difference = np.abs(picture.astype(int) - wanted)
        # The edges of the fields blur where a format is lossy; 8 is for LAB and DXT's 5 bits.
        assert np.percentile(difference, 80) <= 8, (mode, options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright_whatever_its_kind(kind, orientation, tmp_path):
    corner = np.array(PICTURE)
    corner[:16, :16] = 0  # so that every turn shows
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "photograph"
    Image.fromarray(corner).save(path, kind, exif=exif.tobytes(), quality=90)
    picture, wanted = read_image_array(path), TURNS[orientation](corner)
    assert picture.shape == wanted.shape
    assert np.abs(picture.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1, 65_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM"])
def test_pictures_of_one_pixel_or_line_are_read(size, kind, tmp_path):
    path = tmp_path / "line"
    Image.new("RGB", size, (250, 250, 250)).save(path, kind)
    picture = read_image_array(path)
    assert picture.shape == (size[1], size[0], 3)
    assert (np.abs(picture.astype(int) - 250) <= 2).all()


quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(
    pixels=arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))
    ),
    kind=st.sampled_from(["PNG", "TIFF", "WEBP", "TGA", "QOI", "SGI"]),
)
def test_any_pixels_come_back_over_white(pixels, kind, tmp_path):
    path = tmp_path / "pixels"
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    Image.fromarray(pixels).save(path, kind, **options)
    color, alpha = pixels[..., :3].astype(float), 255.0
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(float)
    over_white = (color * alpha + 255 * (255 - alpha)) / 255
    np.testing.assert_allclose(read_image_array(path), over_white, atol=1)


@quick
@given(
    values=arrays.arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 6))),
    kind=st.sampled_from(["PNG", "TIFF", "JPEG2000"]),
)
def test_any_sixteen_bit_grey_is_scaled_by_the_depth_that_holds_it(values, kind, tmp_path):
    path = tmp_path / "grey"
    Image.fromarray(values).save(path, kind)
    # A depth may be exceeded by 1 %, by which resampling overshoots.
    bits = next(n for n in (8, 10, 12, 14, 16) if values.max() <= 1.01 * (2**n - 1))
    scaled = np.floor(255 / (2**bits - 1) * values.clip(0, 2**bits - 1) + 0.5)
    np.testing.assert_array_equal(read_image_array(path), np.repeat(scaled[..., None], 3, 2))


@settings(quick, max_examples=400)
@given(data=st.data())
def test_any_damage_gives_a_picture_or_a_picture_error(data, tmp_path):
    kind, mode, _, content = data.draw(st.sampled_from(corpus()))
    content = bytearray(content)
    positions = st.integers(0, len(content) - 1) | st.integers(0, min(len(content) - 1, 200))
    for position in data.draw(st.lists(positions, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.just(len(content)) | positions)])
    assert_picture_or_error(path, (kind, mode))


def test_a_file_of_every_kind_may_end_anywhere(tmp_path):
    path, refused, files = tmp_path / "cut", 0, {kind: file for kind, *_, file in corpus()}
    for kind, content in files.items():
        for length in {*range(20), *np.linspace(20, len(content) - 1, 12, dtype=int)}:
            path.write_bytes(content[:length])
            refused += assert_picture_or_error(path, (kind, length))
    assert refused > 10 * len(files)


def assert_picture_or_error(path, what):
    """True if it is refused."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
            picture = read_image_array(path, max_pixels=2_000_000)
        assert picture.dtype == np.uint8, what
        assert picture.ndim == 3, what
        assert picture.shape[2] == 3, what
        assert picture.size <= 3 * 2_000_000, what
    except PictureError:
        return True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000_000, what
    return False
