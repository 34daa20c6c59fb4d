"""Scaling of images with more than 8 bits."""

import numpy as np
import pytest
from PIL import Image

from segmodels.data.image_io import PictureError, note_of, read_image, read_image_array
from tests.data.test_formats import grey, tiff
from tests.data.test_image_io import saved


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
    message = r"the image has values .* expected 0 to 1, 255, .* or 65535$"
    with pytest.raises(PictureError, match=message):
        read_image_array(image)


def test_integers_of_more_than_sixteen_bits_are_refused():
    image = Image.fromarray(np.array([[0, 1 << 20]], np.int32))
    with pytest.raises(
        PictureError, match=r"from 0 to 1.04858e\+06; expected 0 to 255, 1023, .* or 65535"
    ):
        read_image_array(image)


def test_12_bit_values_in_16_bits_are_scaled_by_what_they_hold_with_a_note(tmp_path):
    values = np.array([[0, 819, 4095]])
    image = read_image(tiff(tmp_path / "a.tif", [grey(values, 16)]))
    assert np.array(image)[0, :, 0].tolist() == [0, 51, 255]
    assert note_of(image) == (
        "a.tif: 16-bit integers from 0 to 4095, read as 0 (black) to 4095 (white)"
    )


def test_a_declared_depth_needs_no_note(tmp_path):
    page = grey(np.array([[0, 819, 2000]]), 16, **{})
    page[0][281] = 4095  # MaxSampleValue
    image = read_image(tiff(tmp_path / "a.tif", [page]))
    assert np.array(image)[0, :, 0].tolist() == [0, 51, round(2000 / 4095 * 255)]
    assert note_of(image) is None


def test_16_bits_in_full_need_no_note(tmp_path):
    image = read_image(tiff(tmp_path / "a.tif", [grey(np.array([[0, 65535]]), 16)]))
    assert note_of(image) is None
