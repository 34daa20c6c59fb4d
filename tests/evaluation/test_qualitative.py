import numpy as np
import pytest
import torch
from PIL import Image

from segmodels.cli.main import main
from segmodels.data.dataset import open_data
from segmodels.data.image_io import resize
from segmodels.evaluation.evaluator import evaluate
from segmodels.evaluation.qualitative import CELL, GAP, LINE, best_and_worst, picture_grid
from segmodels.inference.segmenter import Segmenter
from segmodels.models.unet import UNet
from tests.support.datasets import CLASS_NAMES, write_camvid


def tiny_segmenter():
    torch.manual_seed(0)
    return Segmenter(UNet(class_names=CLASS_NAMES, base_channels=4), "cpu", "fp32")


def test_best_and_worst_are_the_ends_of_the_order():
    ious = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.3])
    assert best_and_worst(ious, 2) == [2, 4, 5, 3]
    assert best_and_worst(ious, 1) == [2, 3]
    assert best_and_worst(ious, 9) == [2, 4, 0, 5, 3]  # each once, NaN never


def test_a_row_shows_picture_truth_prediction_and_errors(tmp_path):
    data = open_data(write_camvid(tmp_path / "d", test=1), "test")
    segmenter = tiny_segmenter()
    grid = np.array(picture_grid(segmenter, data, evaluate(segmenter, data, quiet=True)))
    picture, target = data.pair(0)
    prediction = segmenter(picture).class_map
    height = round(CELL * 40 / 48)
    top = 2 * LINE
    panels = [
        grid[top : top + height, GAP + number * (CELL + GAP) :][:, :CELL] for number in range(4)
    ]
    palette = np.array([*segmenter.model.palette, [255, 255, 255]], np.uint8)
    np.testing.assert_array_equal(panels[0], resize(picture, CELL))
    truth = palette[np.where(target == 255, 3, target)]
    np.testing.assert_array_equal(panels[1], resize(truth, CELL, nearest=True))
    np.testing.assert_array_equal(panels[2], resize(palette[prediction], CELL, nearest=True))
    wrong = resize((target != prediction) & (target != 255), CELL, nearest=True)
    red = (panels[3] == (215, 25, 28)).all(-1)
    np.testing.assert_array_equal(red, wrong)
    void = resize((target == 255).astype(np.uint8), CELL, nearest=True) == 1
    assert (panels[3][void] == 255).all()


@pytest.mark.parametrize(("count", "rows"), [(1, 2), (2, 4), (9, 5)])
def test_evaluate_writes_a_grid_of_the_best_and_worst(tmp_path, count, rows, capsys):
    data, model = write_camvid(tmp_path / "d", test=5), tmp_path / "unet"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(model)
    file = tmp_path / "grid.png"
    command = ["evaluate", "--model", str(model), "--data", str(data), "--grid", str(file)]
    assert main([*command, "--grid-pictures", str(count)]) == 0
    assert str(file) in capsys.readouterr().out
    with Image.open(file) as grid:
        assert grid.width == 4 * (CELL + GAP) + GAP
        row = LINE + round(CELL * 40 / 48) + GAP
        assert grid.height == LINE + rows * row + LINE + 2 * GAP  # and one line of legend


def test_no_pictures_are_refused_before_the_work(tmp_path, capsys):
    command = ["evaluate", "--model", "m", "--data", "d", "--grid", "g.png", "--grid-pictures", "0"]
    assert main(command) == 1
    assert "--grid-pictures must be at least 1" in capsys.readouterr().err
