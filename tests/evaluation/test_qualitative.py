import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import Segmenter, UNet
from segmodels.data.dataset import open_data
from segmodels.data.resizing import resize
from segmodels.evaluation.evaluator import evaluate
from segmodels.evaluation.qualitative import (
    CELL,
    MAX_EXAMPLES_BYTES,
    best_and_worst,
    examples_sheet,
    image_grid,
    write_examples,
)
from segmodels.utils.contact_sheet import SheetStyle
from tests.support.datasets import CLASS_NAMES, write_camvid

STYLE = SheetStyle()


def tiny_segmenter():
    torch.manual_seed(0)
    return Segmenter(UNet(class_names=CLASS_NAMES, base_channels=4), "cpu", "fp32")


def panels(sheet, count, height):
    """The images of the sheet's first row."""
    top = STYLE.margin + STYLE.label_height
    lefts = [STYLE.margin + number * (CELL + STYLE.gap) for number in range(count)]
    return [np.array(sheet)[top : top + height, left : left + CELL] for left in lefts]


def test_best_and_worst_are_the_ends_of_the_order():
    ious = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.3])
    assert best_and_worst(ious, 2) == [2, 4, 5, 3]
    assert best_and_worst(ious, 1) == [2, 3]
    assert best_and_worst(ious, 9) == [2, 4, 0, 5, 3]  # each once, NaN never


def test_a_row_shows_image_ground_truth_prediction_and_errors(tmp_path):
    data = open_data(write_camvid(tmp_path / "d", test=1), "test")
    segmenter = tiny_segmenter()
    grid = image_grid(segmenter, data, evaluate(segmenter, data, quiet=True))
    image, target = data.pair(0)
    prediction = segmenter(image).class_map
    shown = panels(grid, 4, round(CELL * 40 / 48))
    palette = np.array([*segmenter.model.palette, [255, 255, 255]], np.uint8)
    np.testing.assert_array_equal(shown[0], resize(image, CELL))
    truth = palette[np.where(target == 255, 3, target)]
    np.testing.assert_array_equal(shown[1], resize(truth, CELL, nearest=True))
    np.testing.assert_array_equal(shown[2], resize(palette[prediction], CELL, nearest=True))
    wrong = resize((target != prediction) & (target != 255), CELL, nearest=True)
    red = (shown[3] == (215, 25, 28)).all(-1)
    np.testing.assert_array_equal(red, wrong)
    void = resize((target == 255).astype(np.uint8), CELL, nearest=True) == 1
    assert (shown[3][void] == 255).all()


@pytest.mark.parametrize(("count", "rows"), [(1, 2), (2, 4), (9, 5)])
def test_the_grid_has_a_row_for_each_of_the_best_and_worst(tmp_path, count, rows):
    data, segmenter = open_data(write_camvid(tmp_path / "d", test=5), "test"), tiny_segmenter()
    grid = image_grid(segmenter, data, evaluate(segmenter, data, quiet=True), count)
    row = STYLE.label_height + round(CELL * 40 / 48) + STYLE.gap
    legend = STYLE.label_size + STYLE.gap
    assert grid.height == 2 * STYLE.margin + rows * row + legend
    assert grid.width == 2 * STYLE.margin + 4 * CELL + 3 * STYLE.gap


def test_an_image_that_could_not_be_measured_does_not_shift_the_rows(tmp_path):
    data, segmenter = open_data(write_camvid(tmp_path / "d", test=2), "test"), tiny_segmenter()
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(data.samples[0].label)
    evaluation = evaluate(segmenter, data, skip_errors=True, quiet=True)
    grid = image_grid(segmenter, data, evaluation)
    shown = panels(grid, 1, round(CELL * 40 / 48))
    np.testing.assert_array_equal(shown[0], resize(data.pair(1)[0], CELL))


def test_an_example_shows_image_classes_and_confidence(tmp_path):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    Image.fromarray(noise).save(path)
    segmenter = tiny_segmenter()
    sheet = examples_sheet(segmenter, [path], "drawn by a test")
    shown = panels(sheet, 3, 240)
    result = segmenter(path)
    np.testing.assert_array_equal(shown[0], noise)
    np.testing.assert_array_equal(shown[1], np.array(result.overlay(0.7)))
    grey = 255 * (result.confidence - 0.2) / 0.8  # 0.2 is black, 1 white
    np.testing.assert_allclose(shown[2][..., 0], grey, atol=1)
    without = examples_sheet(segmenter, [path])
    assert sheet.height == without.height + STYLE.label_height


def test_the_examples_file_is_small_whatever_it_shows(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    write_examples(Image.fromarray(noise), tmp_path / "examples.jpg")
    assert (tmp_path / "examples.jpg").stat().st_size <= MAX_EXAMPLES_BYTES
    with Image.open(tmp_path / "examples.jpg") as image:
        assert image.size == (500, 400)
