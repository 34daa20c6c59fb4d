"""Plots of training curves and confusion matrices."""

import numpy as np
import pytest
from PIL import Image

from segmodels.training.plots import MAX_ANNOTATED, draw_confusion, draw_curves

RECORDS = [
    {"epoch": 1, "step": 3, "loss": 1.2, "learning_rate": 0.01, "seconds": 0.5},
    {
        **{"epoch": 2, "step": 6, "loss": 0.8, "learning_rate": 0.005, "seconds": 0.4},
        **{"val_loss": 1.0, "val_mean_iou": 0.4, "val_pixel_accuracy": 0.7},
    },
]


def pixels(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_curves_are_drawn_the_same_again_and_differ_where_a_metric_does(tmp_path):
    changed = [RECORDS[0], {**RECORDS[1], "val_mean_iou": 0.6}]
    for name, records in (("a", RECORDS), ("b", RECORDS), ("c", changed), ("d", RECORDS[:1])):
        draw_curves(tmp_path / f"{name}.png", records)
    first, other, fewer = (pixels(tmp_path / f"{name}.png") for name in "acd")
    assert first.shape == (360, 1200, 3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    thirds = [slice(0, 400), slice(400, 800), slice(800, 1200)]
    assert [np.array_equal(first[:, x], other[:, x]) for x in thirds] == [True, False, True]
    assert not np.array_equal(first, fewer)


def test_a_matrix_is_drawn_darkest_where_most_pixels_are(tmp_path):
    # Of "sky" 90 % are right; "$1_$ 木" has no pixel, as a row of zeros.
    matrix = np.array([[900, 100, 0], [0, 0, 0], [0, 0, 500]])
    draw_confusion(tmp_path / "a.png", matrix, ["sky", "$1_$ \u6728", "car"], "val")
    image = pixels(tmp_path / "a.png").astype(int)
    dark_blue = (image[..., 2] - image[..., 0] > 60) & (image.sum(-1) < 350)
    rows, columns = np.nonzero(dark_blue)
    assert dark_blue.mean() > 0.05
    # The diagonal's ends: the first cell above and left of the last one.
    top, bottom = columns[rows < np.median(rows)], columns[rows > np.median(rows)]
    assert np.median(top) < np.median(bottom)


@pytest.mark.parametrize("count", [1, MAX_ANNOTATED + 1])
def test_any_number_of_classes_is_drawn(tmp_path, count):
    names = [f"class {number}" for number in range(count)]
    draw_confusion(tmp_path / "a.png", np.eye(count, dtype=np.int64), names, "val")
    assert pixels(tmp_path / "a.png").std() > 1
