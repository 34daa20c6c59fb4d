"""Resizing of images and class maps."""

import numpy as np
import pytest

from segmodels.data.resizing import resize


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
