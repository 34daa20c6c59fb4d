import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels.data.dataset import DataError, open_data
from segmodels.evaluation import metrics
from segmodels.evaluation.evaluator import evaluate
from segmodels.inference.segmenter import Segmenter
from segmodels.models.unet import UNet
from tests.support.datasets import CLASS_NAMES


def tiny_segmenter(class_names=CLASS_NAMES):
    torch.manual_seed(0)
    return Segmenter(UNet(class_names=class_names, base_channels=4), "cpu", "fp32")


def test_figures_are_those_of_the_class_maps(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    evaluation = evaluate(segmenter, data, quiet=True)
    maps = [segmenter(data.picture(index)).class_map for index in range(6)]
    targets = [data.target(index) for index in range(6)]
    # One matrix over all pictures: as of one picture that holds all of them.
    matrix = metrics.confusion_matrix(np.concatenate(targets), np.concatenate(maps), 3)
    np.testing.assert_array_equal(evaluation.confusion_matrix, matrix)
    assert matrix.sum() == 6 * 39 * 48  # a row of 40 is void
    assert evaluation.pictures == 6
    scores = [metrics.boundary_f1(*pair, 3) for pair in zip(targets, maps, strict=True)]
    np.testing.assert_allclose(evaluation.boundary_f1, np.nanmean(scores, axis=0))
    assert evaluation.summary() == pytest.approx(
        {
            "mean_iou": metrics.mean_iou(matrix),
            "pixel_accuracy": metrics.pixel_accuracy(matrix),
            "mean_accuracy": metrics.mean_accuracy(matrix),
            "frequency_weighted_iou": metrics.frequency_weighted_iou(matrix),
            "boundary_f1": np.mean([np.nanmean(score) for score in scores]),
        }
    )
    assert evaluation.mean_iou < 0.9  # a random network: nothing above is trivially 1


def test_both_layouts_are_measured_alike(camvid, msrc):
    segmenter = tiny_segmenter()
    first, second = (evaluate(segmenter, open_data(d, "val"), quiet=True) for d in (camvid, msrc))
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("names", [["ground", "wall"], ["wall", "ground", "sky"]])
def test_other_class_names_or_another_order_are_refused(camvid, names):
    message = f"has the classes ground, wall, sky; the network was trained for {', '.join(names)}"
    with pytest.raises(DataError, match=message):
        evaluate(tiny_segmenter(names), open_data(camvid, "test"))


def test_json_has_no_nan(camvid):
    (camvid / "classes.txt").write_text("ground\nwall\nsky\nunicorn\n")
    data = open_data(camvid, "val")  # whose void, 3, is now a class, and void is 4
    for sample in data.samples:
        label = np.array(Image.open(sample.label))
        label[label == 3] = 4
        Image.fromarray(label).save(sample.label)
    segmenter = tiny_segmenter(data.class_names)
    segmenter.network.heatmaps.bias.data[3] = -1e4  # never predicted either
    report = evaluate(segmenter, data, quiet=True).to_json()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["classes"]["unicorn"] == {"iou": None, "accuracy": None, "boundary_f1": None}
    assert report["classes"]["wall"]["accuracy"] is not None
    assert np.shape(report["confusion_matrix"]) == (4, 4)


def test_a_picture_that_is_all_void_counts_for_nothing(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    whole = evaluate(segmenter, data, quiet=True)
    label = data.samples[0].label
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(label)
    without = evaluate(segmenter, data, quiet=True)
    assert without.confusion_matrix.sum() == 5 * 39 * 48
    assert math.isfinite(without.mean_boundary_f1)
    assert without.mean_boundary_f1 != whole.mean_boundary_f1


def test_boundaries_are_measured_on_request_only(camvid):
    evaluation = evaluate(tiny_segmenter(), open_data(camvid, "val"), boundaries=False, quiet=True)
    assert math.isnan(evaluation.mean_boundary_f1)
    assert evaluation.to_json()["boundary_f1"] is None
    assert evaluation.mean_iou > 0


def test_the_table_is_in_percent_and_in_columns(camvid):
    data = open_data(camvid, "val")
    evaluation = evaluate(tiny_segmenter(), data, boundaries=False, quiet=True)
    evaluation.confusion_matrix[:] = [[30, 10, 0], [0, 60, 0], [0, 0, 0]]
    # ground: 30 of 30 + 10; wall: 60 of 60 + 10; sky: nowhere.
    lines = evaluation.table().splitlines()
    assert lines[0].split() == ["class", "IoU", "accuracy", "boundary", "F1"]
    assert lines[1].split() == ["ground", "75.00", "75.00", "-"]
    assert lines[2].split() == ["wall", "85.71", "100.00", "-"]
    assert lines[3].split() == ["sky", "-", "-", "-"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert "mean iou                     80.36" in lines  # (75 + 85.714) / 2
    assert "pixel accuracy               90.00" in lines


def test_a_long_class_name_keeps_the_columns(camvid):
    names = ["ground", "wall", "a very long name of a class"]
    (camvid / "classes.txt").write_text("\n".join(names))
    data = open_data(camvid, "val")
    table = evaluate(tiny_segmenter(names), data, boundaries=False, quiet=True).table()
    assert len({len(line) for line in table.splitlines()[:4]}) == 1


def test_progress_is_shown_unless_quiet(camvid, capsys):
    data, segmenter = open_data(camvid, "val"), tiny_segmenter()
    evaluate(segmenter, data, quiet=True)
    assert capsys.readouterr().err == ""
    evaluate(segmenter, data)
    assert "2/2" in capsys.readouterr().err
