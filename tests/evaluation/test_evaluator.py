import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from segmodels.data.dataset import DataError, open_data
from segmodels.evaluation import metrics
from segmodels.evaluation.em_metrics import membrane_metrics
from segmodels.evaluation.evaluator import Evaluation, ImageResult, evaluate
from segmodels.evaluation.object_metrics import object_counts
from segmodels.inference.segmenter import Segmenter
from segmodels.models.unet import UNet
from tests.support.datasets import CLASS_NAMES


def tiny_segmenter(class_names=CLASS_NAMES):
    torch.manual_seed(0)
    return Segmenter(UNet(class_names=class_names, base_channels=4), "cpu", "fp32")


def test_metrics_are_those_of_the_class_maps(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    evaluation = evaluate(segmenter, data, quiet=True)
    maps = [segmenter(data.image(index)).class_map for index in range(6)]
    targets = [data.target(index) for index in range(6)]
    # One matrix over all images: as of one image that holds all of them.
    matrix = metrics.confusion_matrix(np.concatenate(targets), np.concatenate(maps), 3)
    np.testing.assert_array_equal(evaluation.confusion_matrix, matrix)
    assert matrix.sum() == 6 * 39 * 48  # a row of 40 is void
    assert len(evaluation.images) == 6
    scores = [metrics.boundary_f1(*pair, 3) for pair in zip(targets, maps, strict=True)]
    np.testing.assert_allclose(evaluation.boundary_f1, np.nanmean(scores, axis=0))
    assert evaluation.summary() == pytest.approx(
        {
            "mean_iou": metrics.mean_iou(matrix),
            "mean_dice": np.mean(metrics.per_class_dice(matrix)),
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
    message = (
        "has the classes ground, wall, sky; expected those of the network, in the same order: "
    )
    message += ", ".join(names)
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
    assert set(report["classes"]["unicorn"].values()) == {None}
    assert report["absent_classes"] == ["unicorn"]
    assert report["classes"]["wall"]["accuracy"] is not None
    assert np.shape(report["confusion_matrix"]) == (4, 4)


def test_an_image_that_is_all_void_counts_for_nothing(camvid):
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


def evaluation_of(matrix, names=CLASS_NAMES, **image):
    return Evaluation(list(names), [ImageResult(0, "a_1.png", np.array(matrix), **image)])


def test_the_table_is_in_percent_and_in_columns():
    # ground: 30 of 30 + 10; wall: 60 of 60 + 10; sky: nowhere.
    evaluation = evaluation_of([[30, 10, 0], [0, 60, 0], [0, 0, 0]])
    lines = evaluation.table().splitlines()
    head = "class IoU Dice (F1) precision accuracy (recall) boundary F1"
    assert lines[0].split() == head.split()
    # Dice: 2 * 30 / (40 + 30), 2 * 60 / (60 + 70); precision: 30 / 30, 60 / 70.
    assert lines[1].split() == ["ground", "75.00", "85.71", "100.00", "75.00", "-"]
    assert lines[2].split() == ["wall", "85.71", "92.31", "85.71", "100.00", "-"]
    assert lines[3].split() == ["sky", "-", "-", "-", "-", "-"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert "mean IoU                     80.36" in lines  # (75 + 85.714) / 2
    assert "pixel accuracy               90.00" in lines


def test_classes_that_the_ground_truth_lacks_are_named_and_left_out_of_a_second_mean():
    # sky is nowhere in the ground truth, but 20 pixels of ground are taken for it.
    evaluation = evaluation_of([[60, 0, 20], [0, 20, 0], [0, 0, 0]])
    # IoU: 60 / 80, 20 / 20, 0 / 20.
    assert evaluation.mean_iou == pytest.approx((0.75 + 1 + 0) / 3)
    assert evaluation.absent_classes == ["sky"]
    present = evaluation.summary_of_present()
    assert present["mean_iou"] == pytest.approx((0.75 + 1) / 2)
    assert present["mean_dice"] == pytest.approx((2 * 60 / 140 + 1) / 2)
    report = evaluation.to_json()
    assert report["absent_classes"] == ["sky"]
    assert report["present_classes"]["count"] == 2
    assert report["present_classes"]["mean_iou"] == pytest.approx(0.875)
    table = evaluation.table()
    assert "the ground truth does not contain sky; over the 2 classes present:" in table
    assert "mean IoU                     87.50" in table.splitlines()
    complete = evaluation_of([[60, 0, 20], [0, 20, 0], [0, 0, 9]])
    assert "lacks" not in complete.table()


def test_boundary_f1_is_not_judged_where_outlines_are_void():
    scores = np.array([0.04, 0.5, np.nan])
    at_void = np.array([[99, 100], [30, 100], [0, 0]])
    evaluation = evaluation_of(np.eye(3, dtype=int), boundary_f1=scores, void_outlines=at_void)
    np.testing.assert_array_equal(evaluation.boundary_f1, [np.nan, 0.5, np.nan])
    assert evaluation.mean_boundary_f1 == 0.5
    report = evaluation.to_json()["classes"]
    assert (report["ground"]["boundary_f1"], report["ground"]["void_outline"]) == (None, 0.99)
    lines = evaluation.table().splitlines()
    assert lines[1].endswith("not judged")
    assert "boundary F1                  50.00" in lines
    everywhere = np.array([[99, 100], [96, 100], [0, 0]])
    void = evaluation_of(np.eye(3, dtype=int), boundary_f1=scores, void_outlines=everywhere)
    assert math.isnan(void.mean_boundary_f1)
    assert "boundary F1                not judged: outlines are void" in void.table()
    assert void.to_json()["boundary_f1"] is None


def test_labels_as_pascal_vocs_are_not_judged_and_others_are(camvid):
    data = open_data(camvid, "val")
    for sample in data.samples:  # void wherever two classes meet, three pixels wide
        label = np.array(Image.open(sample.label))
        edges = np.zeros(label.shape, bool)
        for axis in (0, 1):
            step = np.diff(label, axis=axis) != 0
            edges |= np.pad(step, [(0, 1), (0, 0)][:: 1 if axis == 0 else -1])
        label[binary_dilation(edges, iterations=2)] = 3
        Image.fromarray(label).save(sample.label)
    evaluation = evaluate(tiny_segmenter(), data, quiet=True)
    assert (evaluation.void_outline_share == 1).all()
    assert evaluation.to_json()["boundary_f1"] is None


def test_metrics_of_each_source_are_those_of_its_images_alone(camvid):
    for number, path in enumerate(sorted((camvid / "train").iterdir())):
        name = f"{'city' if number % 2 else 'village'}_{number}.png"
        (camvid / "trainannot" / path.name).rename(camvid / "trainannot" / name)
        path.rename(path.with_name(name))
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    evaluation = evaluate(segmenter, data, quiet=True)
    sources = evaluation.by_source()
    assert list(sources) == ["city", "village"]
    for name, part in sources.items():
        own = [sample for sample in data.samples if sample.label.name.startswith(name)]
        alone = evaluate(segmenter, replace(data, samples=own), quiet=True)
        assert part.to_json() == alone.to_json()
    report = evaluation.to_json(by_source=True)
    assert report["sources"]["city"] == sources["city"].to_json()
    line = next(line for line in evaluation.source_table().splitlines() if "city" in line)
    iou = metrics.per_class_iou(sources["city"].confusion_matrix)
    assert line.split()[1] == "3"
    assert line.split()[-3:] == [f"{100 * value:.2f}" for value in iou]


def test_the_csv_has_a_row_for_each_image(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    evaluation = evaluate(segmenter, data, objects=["wall"], membrane="wall", quiet=True)
    rows = list(csv.DictReader(io.StringIO(evaluation.csv())))
    assert len(rows) == 6
    for index, row in enumerate(rows):
        alone = evaluate(
            segmenter, replace(data, samples=[data.samples[index]]), objects=["wall"], quiet=True
        )
        assert row["image"] == f"{index:03}.png"
        assert float(row["mean_iou"]) == pytest.approx(alone.mean_iou, abs=1e-6)
        assert float(row["boundary_f1"]) == pytest.approx(alone.mean_boundary_f1, abs=1e-6)
        assert int(row["wall_found"]) == alone.objects["wall"].found
        assert float(row["iou_sky"]) == pytest.approx(alone.class_rows()["sky"]["iou"], abs=1e-6)
        assert 0 <= float(row["v_rand"]) <= 1


def test_objects_and_membranes_are_summed_and_averaged_over_the_images(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    evaluation = evaluate(segmenter, data, objects=["wall", "sky"], membrane="wall", quiet=True)
    maps = [segmenter(data.pair(index)[0]).class_map for index in range(6)]
    pairs = [(data.target(index), class_map) for index, class_map in enumerate(maps)]
    counts = [object_counts(*pair, 2) for pair in pairs]
    report = evaluation.to_json()
    assert report["objects"]["sky"]["missed"] == sum(one.missed for one in counts)
    assert report["objects"]["sky"]["extra"] == sum(one.extra for one in counts) > 0
    rand = np.mean([membrane_metrics(*pair, 1).v_rand for pair in pairs])
    assert report["membranes"]["v_rand"] == pytest.approx(rand)
    assert report["membranes"]["rand_error"] == pytest.approx(1 - rand)
    best = report["membranes"]["best_of_thresholds"]["v_rand"]
    at_best = [
        membrane_metrics(
            data.target(index),
            np.where(segmenter.probabilities(data.pair(index)[0])[1] >= best["threshold"], 1, 0),
            1,
        ).v_rand
        for index in range(6)
    ]
    assert best["value"] == pytest.approx(np.mean(at_best))
    assert "objects of sky, matched at IoU 0.5: " in evaluation.table()
    with pytest.raises(DataError, match="no class 'cloud'; choose one of ground, wall, sky"):
        evaluate(segmenter, data, objects=["cloud"], quiet=True)


def test_membranes_are_measured_where_labels_have_some(camvid):
    samples, segmenter = open_data(camvid, "train").samples, tiny_segmenter()
    for sample in samples[:2]:
        ids = np.array(Image.open(sample.label))
        Image.fromarray(np.where(ids == 1, 0, ids).astype(np.uint8)).save(sample.label)
    evaluation = evaluate(segmenter, open_data(camvid, "train"), membrane="wall", quiet=True)
    assert [image.membranes is None for image in evaluation.images] == [True] * 2 + [False] * 4
    mean = np.mean([image.membranes.v_rand for image in evaluation.images[2:]])
    assert evaluation.membranes.v_rand == pytest.approx(mean)
    rows = list(csv.DictReader(io.StringIO(evaluation.csv())))
    assert [row["v_rand"] == "" for row in rows] == [True] * 2 + [False] * 4


def test_a_label_that_cannot_be_used_is_named_and_the_rest_is_measured(camvid):
    data, segmenter = open_data(camvid, "train"), tiny_segmenter()
    rest = evaluate(segmenter, replace(data, samples=data.samples[:-1]), quiet=True)
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(data.samples[-1].label)
    with pytest.raises(DataError, match=r"005\.png has ids \[77\]"):
        evaluate(segmenter, data, quiet=True)
    evaluation = evaluate(segmenter, data, skip_errors=True, quiet=True)
    report = evaluation.to_json()
    (error,) = report.pop("errors")
    assert error["image"] == "005.png"
    assert "77" in error["error"]
    assert report == rest.to_json()
    assert "005.png,," in evaluation.csv().splitlines()[-1]
    only_bad = replace(data, samples=data.samples[-1:])
    with pytest.raises(DataError, match="none of the 1 images can be evaluated"):
        evaluate(segmenter, only_bad, skip_errors=True, quiet=True)


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
