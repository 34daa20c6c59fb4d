import struct
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from segmodels.data.image_io import PictureError, read_image_array, resize

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
random = np.random.default_rng(0)


@pytest.fixture
def scene():
    """(3, 5, 3): no two pixels alike, so that every turn shows."""
    return random.integers(0, 256, (3, 5, 3), dtype=np.uint8)


def saved(image, tmp_path, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


# ---- what is read ----


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "tga", "jp2"])
def test_a_lossless_file_is_read_exactly(scene, tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(Image.fromarray(scene), tmp_path, f"scene.{suffix}", **options)
    np.testing.assert_array_equal(read_image_array(path), scene)
    np.testing.assert_array_equal(read_image_array(str(path)), scene)


def test_a_jpeg_is_read_in_colour(tmp_path):
    path = saved(Image.new("RGB", (16, 8), RED), tmp_path, "red.jpg", quality=95)
    picture = read_image_array(path)
    assert picture.shape == (8, 16, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, np.broadcast_to(RED, picture.shape), atol=3)


def test_arrays_are_read(scene):
    np.testing.assert_array_equal(read_image_array(scene), scene)
    np.testing.assert_array_equal(read_image_array(scene[..., 0]), scene[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(read_image_array(scene[:, ::-1]), scene[:, ::-1])
    alpha = np.uint8([[255] * 5, [0] * 5, [51] * 5])  # whole, none, a fifth
    expected = scene.astype(float)
    expected[1], expected[2] = 255, 0.2 * scene[2] + 0.8 * 255
    np.testing.assert_allclose(read_image_array(np.dstack([scene, alpha])), expected, atol=1)


def test_the_result_is_a_copy(scene):
    assert not np.shares_memory(read_image_array(scene), scene)


TURNS = {  # what was stored -> what is seen, as EXIF 2.3 defines the orientations
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied_once(scene, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(Image.fromarray(scene), tmp_path, f"a.{suffix}", exif=exif.tobytes(), **options)
    expected = TURNS[orientation](scene)
    np.testing.assert_array_equal(read_image_array(path), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image_array(image), expected)


def test_exif_that_cannot_be_read_turns_nothing(scene, tmp_path):
    path = saved(Image.fromarray(scene), tmp_path, "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image_array(path), scene)


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.array([[True, False, True]])
    path = saved(Image.fromarray(bits), tmp_path, "bits.png")
    assert read_image_array(path)[0].tolist() == [[255] * 3, [0] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_grey_is_scaled_to_eight(mode):
    # 65535 = 255 * 257, so that 257 n becomes n.
    values = np.array([[0, 257, 25700, 65535]])
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (4, 1), values.astype(dtype).tobytes())
    assert read_image_array(image)[0, :, 0].tolist() == [0, 1, 100, 255]


def test_a_sixteen_bit_png_and_tiff_are_scaled(tmp_path):
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))  # 32896 = 128 * 257
    for name in ("deep.png", "deep.tif"):
        assert read_image_array(saved(image, tmp_path, name))[0, :, 2].tolist() == [0, 128, 255]


def test_floats_are_taken_from_zero_to_one(tmp_path):
    image = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    assert read_image_array(saved(image, tmp_path, "f.tif"))[0, :, 1].tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    ("mode", "dtype", "values", "expected"),
    [
        ("F", np.float32, [0, 51, 255], [0, 51, 255]),  # as PIL's convert("F") leaves them
        ("F", np.float32, [0, 257, 65535], [0, 1, 255]),
        ("F", np.float32, [-0.001, 1.004, 0.5], [0, 255, 128]),  # overshooting of a resampling
        ("I", np.int32, [0, 51, 255], [0, 51, 255]),
        ("I", np.int32, [0, 2570, 65535], [0, 10, 255]),
        ("I", np.int32, [0, 819, 4095], [0, 51, 255]),
        ("F", np.float32, [0, 819, 4095], [0, 51, 255]),
    ],
)
def test_the_largest_value_tells_what_white_is(mode, dtype, values, expected):
    image = Image.fromarray(np.array([values], dtype))
    assert image.mode == mode
    assert read_image_array(image)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [128_000.0, -3.0, np.nan, np.inf])
def test_floats_beyond_are_refused(value):
    image = Image.fromarray(np.array([[0.5, value]], np.float32))
    message = r"the image has values .* expected 0 to 1 or 255 or .* or 65535$"
    with pytest.raises(PictureError, match=message):
        read_image_array(image)


def test_integers_of_more_than_sixteen_bits_are_refused():
    image = Image.fromarray(np.array([[0, 1 << 20]], np.int32))
    with pytest.raises(
        PictureError, match=r"from 0 to 1.04858e\+06; expected 0 to 255 or .* or 65535"
    ):
        read_image_array(image)


def test_transparency_lies_over_white_and_its_colour_is_never_shown(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (*RED, 255))
    rgba.putpixel((1, 0), (*BLUE, 0))
    grey = Image.new("LA", (2, 1), (80, 255))
    grey.putpixel((1, 0), (0, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    rgb = Image.new("RGB", (2, 1), RED)
    rgb.putpixel((1, 0), BLUE)
    deep = Image.fromarray(np.array([[80 * 257, 4000]], np.uint16))
    pictures = {
        "rgba.png": (rgba, {}, RED),
        "rgba.webp": (rgba, {"lossless": True, "exact": True}, RED),
        "grey.png": (grey, {}, (80, 80, 80)),
        "index.png": (palette, {"transparency": 1}, RED),
        "alphas.png": (palette, {"transparency": b"\xff\x00"}, RED),
        "palette.gif": (palette, {"transparency": 1}, RED),
        "key.png": (rgb, {"transparency": BLUE}, RED),
        "deep.png": (deep, {"transparency": 4000}, (80, 80, 80)),
    }
    for name, (image, options, opaque) in pictures.items():
        picture = read_image_array(saved(image, tmp_path, name, **options))
        assert [tuple(pixel) for pixel in picture[0].tolist()] == [opaque, WHITE], name


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), RED),
        ("YCbCr", (76, 85, 255), RED),  # ITU-R 601: 0.299 * 255 = 76
        ("HSV", (0, 255, 255), RED),
        # CIELAB of sRGB's red is (54.29, 80.8, 69.9) under D50; L in 255/100, a and b + 128.
        ("LAB", (138, 209, 198), RED),
        ("RGBX", (*GREEN, 0), GREEN),
    ],
)
def test_other_colour_spaces_become_rgb(mode, value, expected):
    picture = read_image_array(Image.new(mode, (2, 2), value))
    np.testing.assert_allclose(picture[1, 1], expected, atol=6)  # LAB in 8 bits is coarse


def test_a_cmyk_jpeg_and_a_lab_tiff_are_read(tmp_path):
    cmyk = saved(Image.new("CMYK", (8, 8), (255, 255, 0, 0)), tmp_path, "a.jpg", quality=95)
    lab = saved(Image.new("LAB", (8, 8), (138, 209, 198)), tmp_path, "a.tif")
    np.testing.assert_allclose(read_image_array(cmyk)[4, 4], BLUE, atol=3)
    np.testing.assert_allclose(read_image_array(lab)[4, 4], RED, atol=6)


def linear_profile():
    """sRGB's primaries with a linear curve: an sRGB profile whose curves are the identity."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for number in range(count):
        tag, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset : offset + size] = (b"curv" + bytes(8)).ljust(size, b"\0")
        if tag == b"desc":  # so that its name is not sRGB's
            profile[offset + 12 : offset + size] = bytes(size - 12)
    return bytes(profile)


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    # Half of the light is 188 in sRGB: 255 * (1.055 * 0.5^(1 / 2.4) - 0.055) = 187.5.
    options = {"icc_profile": linear_profile()}
    for mode, value in (("RGB", (128, 0, 255)), ("RGBA", (128, 0, 255, 255))):
        path = saved(Image.new(mode, (2, 2), value), tmp_path, f"{mode}.png", **options)
        np.testing.assert_allclose(read_image_array(path)[0, 0], (188, 0, 255), atol=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("profile", ["linear", "damaged", "srgb"])
def test_a_profile_that_does_not_fit_is_no_obstacle(mode, profile):
    image = Image.new(mode, (2, 2))
    image.info["icc_profile"] = {
        "linear": linear_profile(),
        "damaged": b"nothing of a profile",
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }[profile]
    assert read_image_array(image).shape == (2, 2, 3)


# ---- animations, and images that belong to the caller ----


def frames():
    return [Image.new("RGB", (4, 3), color) for color in (RED, GREEN, BLUE)]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.png", {})],
)
def test_of_several_frames_the_first_is_read(tmp_path, name, options):
    first, *rest = frames()
    path = saved(first, tmp_path, name, save_all=True, append_images=rest, **options)
    assert (read_image_array(path) == RED).all()
    with Image.open(path) as image:
        image.seek(2)
        assert (read_image_array(image) == RED).all()
        assert image.tell() == 2
        assert image.convert("RGB").getpixel((0, 0)) == BLUE


def test_an_image_handed_in_is_neither_changed_nor_closed(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = saved(Image.new("RGBA", (4, 3), (9, 9, 9, 9)), tmp_path, "a.png", exif=exif)
    with Image.open(path) as image:
        before = image.copy()
        assert read_image_array(image).shape == (4, 3, 3)
        assert (image.size, image.mode) == ((4, 3), "RGBA")
        assert image.getexif()[ExifTags.Base.Orientation] == 6
        assert image.tobytes() == before.tobytes()


def test_a_file_is_closed_again(scene, tmp_path):
    path = saved(Image.fromarray(scene), tmp_path, "a.gif", save_all=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_image_array(path)
    path.unlink()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), np.float32), "array of float32; expected uint8"),
        (np.zeros((2, 2), bool), "array of bool; expected uint8"),
        (np.zeros((2, 2), np.uint16), "array of uint16; expected uint8"),
        (np.zeros(4, np.uint8), r"shape \(4,\); expected \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\); expected"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"shape \(1, 2, 2, 3\); expected"),
        (np.zeros((0, 2, 3), np.uint8), r"shape \(0, 2, 3\), which has no pixels"),
        (None, "got NoneType; expected an image file"),
        ([[0, 1], [1, 0]], "got list; expected an image file"),
    ],
)
def test_what_is_no_picture_is_refused(array, message):
    with pytest.raises(PictureError, match=message):
        read_image_array(array)


def test_an_image_that_was_closed_is_refused(scene, tmp_path):
    with Image.open(saved(Image.fromarray(scene), tmp_path, "a.png")) as image:
        pass
    with pytest.raises(PictureError, match="the image is damaged, cut off"):
        read_image_array(image)


def test_max_pixels_holds_for_arrays_and_images_too(scene):
    assert read_image_array(scene, max_pixels=15).shape == scene.shape
    for picture in (scene, Image.fromarray(scene)):
        with pytest.raises(PictureError, match=r"5 x 3 = .* scale it down first"):
            read_image_array(picture, max_pixels=14)


# ---- resize ----


@pytest.mark.parametrize(
    ("shape", "longer_side", "expected"),
    [
        ((40, 80), 20, (10, 20)),
        ((80, 40), 120, (120, 60)),
        ((1, 300), 30, (1, 30)),  # never 0
        ((7, 7), 7, (7, 7)),
    ],
)
def test_resize_sets_the_longer_side(shape, longer_side, expected):
    assert resize(np.zeros((*shape, 3), np.uint8), longer_side).shape == (*expected, 3)
    assert resize(np.zeros(shape, np.uint8), longer_side, nearest=True).shape == expected


def test_resize_averages_pictures_and_keeps_class_ids():
    ids = np.array([[0, 200] * 8] * 16, np.uint8)
    # Halved with antialiasing every pixel sees both columns; by the nearest it is one of them.
    assert (np.abs(resize(ids, 8).astype(int)[:, 1:-1] - 100) <= 1).all()
    assert set(np.unique(resize(ids, 5, nearest=True))) <= {0, 200}


def test_resize_of_floats_stays_float():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    small = resize(values, 4)
    assert small.dtype == np.float32
    assert small.mean() == pytest.approx(0.5, abs=0.01)
