"""EXIF orientation of images."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from segmodels.data.image_io import read_image_array
from segmodels.data.orientation import apply_orientation
from tests.data.test_image_io import saved

TURNS = {  # stored pixels -> displayed pixels, as EXIF 2.3 defines the orientations
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_of_an_array(scene, orientation):
    np.testing.assert_array_equal(apply_orientation(scene, orientation), TURNS[orientation](scene))


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
