"""The published networks, on a street that none of them has seen."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from segmodels import FCN, Segmenter, SegNet, UNet, load_model
from segmodels.evaluation.benchmark import plain_segmenter

pytestmark = pytest.mark.weights

ROOT = Path(__file__).resolve().parents[1]
STREET = ROOT / "examples" / "avenue.jpg"  # 900 x 600
# (left, top, right, bottom) in pixels, as one sees them in the picture.
REGIONS = {
    "road": (150, 530, 480, 590),
    "sky": (550, 10, 700, 60),
    "building": (730, 60, 800, 160),
    "car": (500, 330, 640, 430),
    "tree": (90, 110, 250, 230),
}


@pytest.fixture(scope="module", params=[("fcn", FCN), ("unet", UNet), ("segnet", SegNet)])
def network(request):
    name, kind = request.param
    model = load_model(ROOT / "weights_card" / f"{name}-camvid")
    assert type(model) is kind
    return model


@pytest.fixture(scope="module")
def answer(network):
    """(picture, precision) -> the network's answer, computed once: bf16 is slow on some CPUs."""

    @cache
    def segmenter(precision):
        made = Segmenter(network, "cpu", precision)
        return made if made.precision == precision else segmenter(made.precision)

    @cache
    def segment(picture, segmenter):
        return segmenter(picture)

    return lambda picture, precision: segment(picture, segmenter(precision))


@pytest.fixture(scope="module")
def plain(network):
    return plain_segmenter(network, torch.device("cpu"))


@pytest.fixture(scope="module")
def result(answer):
    return answer(STREET, "auto")


@pytest.mark.parametrize("name", REGIONS)
def test_things_are_where_one_sees_them(result, name):
    left, top, right, bottom = REGIONS[name]
    region = result.class_map[top:bottom, left:right]
    assert (region == result.class_names.index(name)).mean() > 0.6


@pytest.mark.parametrize("name", ["avenue", "crossing"])
def test_as_it_ships_it_gives_the_classes_that_float32_gives(plain, answer, name):
    """On CamVid's test images `segmodels benchmark --data` measures the same."""
    image = ROOT / "examples" / f"{name}.jpg"
    exact = plain(image)
    for precision, least, difference in (("fp32", 0.9999, 1e-3), ("bf16", 0.995, 0.02)):
        shipped = answer(image, precision)
        assert (shipped.class_map == exact.class_map).mean() >= least, precision
        assert np.abs(shipped.confidence - exact.confidence).mean() < difference, precision


def test_the_classes_are_camvids(network):
    assert network.class_names == [
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
        *("pedestrian", "bicyclist"),
    ]
    assert network.working_size == 480
