"""Images with any number of channels: multispectral TIFFs and .npy files."""

import numpy as np
import pytest

from segmodels.data.image_io import PictureError, inspect_image, read_channels, read_image
from tests.data.test_formats import tiff

random = np.random.default_rng(0)


def test_channels_that_are_no_colors(tmp_path):
    values = random.integers(0, 4096, (4, 3, 5)).astype(np.uint16)
    values[0, 0, 0] = 4095
    tags = {256: 3, 257: 4, 258: [16] * 5, 262: 1, 277: 5, 278: 4, 338: [0] * 4}
    path = tiff(tmp_path / "a.tif", [(tags, [values.astype("<u2").tobytes()])])
    scaled = np.floor(255 / 4095 * values.astype(np.float32) + 0.5)
    np.testing.assert_array_equal(read_channels(path, 5), scaled)
    np.testing.assert_array_equal(read_channels(path), scaled)
    with pytest.raises(PictureError, match=r"has 5 channels that are not declared as colours"):
        read_image(path)
    with pytest.raises(PictureError, match="has 5 channels; expected 4"):
        read_channels(path, 4)


def test_channels_are_turned_like_colors(tmp_path):
    values = random.integers(0, 256, (4, 3, 5)).astype(np.uint8)
    tags = {256: 3, 257: 4, 258: [8] * 5, 262: 1, 277: 5, 278: 4, 338: [0] * 4, 274: 6}
    path = tiff(tmp_path / "a.tif", [(tags, [values.tobytes()])])
    array, facts = inspect_image(path, 5)
    np.testing.assert_array_equal(array, np.rot90(values, -1))
    assert facts.orientation == 6


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 4), (4, 70, 80)])
def test_arrays_have_their_channels_last(tmp_path, shape):
    values = random.integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    expected = values
    if len(shape) == 2:
        expected = values[..., None].repeat(3, 2)
    elif shape[0] == 4:
        expected = values.transpose(1, 2, 0)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.npy"), expected)


def test_arrays_of_objects_are_not_unpickled_and_large_ones_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(PictureError, match="expected integers or floats"):
        read_channels(tmp_path / "a.npy")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (200000, 200000)}".ljust(118)
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header)
    with pytest.raises(PictureError, match="which is too large for the memory"):
        read_channels(tmp_path / "a.npy")
