"""The examples of training in a loop of one's own, with Lightning and with torchmetrics, run."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

from segmodels import Segmenter, UNet, load_model
from segmodels.evaluation import metrics
from segmodels.training import evaluate, open_dataset

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_own_loop_trains_a_network_that_loads(camvid, tmp_path):
    mean_iou = example("train_own_loop").main(
        str(camvid), str(tmp_path / "out"), epochs=1, base_channels=2
    )
    model = load_model(tmp_path / "out")
    assert isinstance(model, UNet)
    again = evaluate(Segmenter(model, "cpu"), open_dataset(camvid, "val"), quiet=True)
    assert again.mean_iou == pytest.approx(mean_iou)


@pytest.mark.slow
def test_lightning_trains_a_network_that_loads(camvid, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        pytest.importorskip("lightning")
        losses = example("train_lightning").main(str(camvid), str(tmp_path / "out"), epochs=4)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert load_model(tmp_path / "out").variant == "basic"


def test_torchmetrics_measures_what_the_package_measures(camvid, tmp_path):
    pytest.importorskip("torchmetrics")
    UNet(class_names=["ground", "wall", "sky"], base_channels=2).save_pretrained(tmp_path / "net")
    found = example("evaluate_torchmetrics").main(str(tmp_path / "net"), str(camvid))
    segmenter = Segmenter(load_model(tmp_path / "net"), "cpu", "fp32")
    own = evaluate(segmenter, open_dataset(camvid, "val"), quiet=True)
    assert found == pytest.approx(metrics.per_class_iou(own.confusion_matrix).tolist(), abs=1e-6)
