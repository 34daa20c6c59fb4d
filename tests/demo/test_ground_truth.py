"""How far a network is from a label image."""

import numpy as np
import pytest
from PIL import Image

from segmodels.demo import ground_truth
from segmodels.evaluation.metrics import confusion_matrix, per_class_iou
from segmodels.inference.comparison import ModelResult
from segmodels.inference.results import LabeledImage

NAMES = ["road", "sky", "car"]
PALETTE = [[10, 20, 30], [200, 100, 0], [0, 0, 255]]


def result(network, class_map, names=NAMES):
    ids = np.array(class_map, np.uint8)
    image = Image.new("RGB", ids.shape[::-1])
    return ModelResult(network, LabeledImage(image, ids, names, PALETTE), 1.0)


def test_a_judgement_is_the_fields_metrics_over_the_classes_of_the_truth(networks):
    target = np.array([[0, 0, 0, 1, 1, 255]], np.uint8)
    found = np.array([[0, 0, 1, 1, 2, 2]], np.uint8)
    judgement = ground_truth.judge(target, NAMES, result(networks[0], found))
    # road: 2 of 3; sky: 1 right, 1 missed, 1 too many; car is not in the truth.
    assert judgement.iou[:2] == pytest.approx([2 / 3, 1 / 3])
    assert np.isnan(judgement.iou[2])
    assert judgement.mean_iou == pytest.approx(1 / 2)
    assert judgement.pixel_accuracy == pytest.approx(3 / 5)
    assert judgement.errors.tolist() == [[0, 0, 1, 0, 1, 2]]
    assert np.allclose(judgement.iou[:2], per_class_iou(confusion_matrix(target, found, 3))[:2])


def test_classes_are_matched_by_name_and_those_of_no_truth_are_wrong(networks):
    target = np.array([[0, 1]], np.uint8)
    judgement = ground_truth.judge(
        target, ["sky", "road"], result(networks[0], [[1, 2]])
    )  # sky, car
    assert judgement.errors.tolist() == [[0, 1]]
    assert judgement.iou.tolist() == [1.0, 0.0]
