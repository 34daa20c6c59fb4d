"""Colour modes, colour profiles and transparency."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from segmodels.data.image_io import read_image_array
from tests.data.test_image_io import saved

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.array([[True, False, True]])
    path = saved(Image.fromarray(bits), tmp_path, "bits.png")
    assert read_image_array(path)[0].tolist() == [[255] * 3, [0] * 3, [255] * 3]


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


def test_set_bits_of_an_xbm_are_black(tmp_path):
    # X11: the first pixel is the lowest bit.
    (tmp_path / "a.xbm").write_text(
        "#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x05 };\n"
    )
    read = read_image_array(tmp_path / "a.xbm")
    assert read[0, :, 0].tolist() == [0, 255, 0, 255, 255, 255, 255, 255]


def test_set_bits_of_a_psd_bitmap_are_black(tmp_path):
    # Photoshop file format: 1 channel, 1 x 8, depth 1, mode 0 (bitmap), no compression.
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, 1, 8, 1, 0)
    (tmp_path / "a.psd").write_bytes(head + bytes(12) + b"\0\0" + bytes([0b10100000]))
    read = read_image_array(tmp_path / "a.psd")
    assert read[0, :, 0].tolist() == [0, 255, 0, 255, 255, 255, 255, 255]
