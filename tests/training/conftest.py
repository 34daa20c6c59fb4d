"""A tiny training, and weights to start one from."""

import hashlib

import pytest
from PIL import Image

from segmodels.training import runner
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from tests.support.datasets import write_camvid


@pytest.fixture(scope="session", autouse=True)
def pixels_for_plots():
    """In place of each plot, draw a pixel whose color depends on all that is to be plotted: a plot
    takes longer than a tiny training. test_plots.py draws the plots themselves."""

    def draw_curves(path, records):
        draw(path, [{k: v for k, v in record.items() if k != "seconds"} for record in records])

    def draw_confusion(path, matrix, *texts):
        draw(path, (matrix.tolist(), texts))

    def draw(path, content):
        color = tuple(hashlib.sha256(repr(content).encode()).digest()[:3])
        Image.new("RGB", (1, 1), color).save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "draw_curves", draw_curves)
        patch.setattr(runner, "draw_confusion", draw_confusion)
        yield


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Three epochs, the first at half the size, of three steps each."""
    folder = write_camvid(tmp_path_factory.mktemp("data") / "camvid", train=6, val=2)
    tiny = {"epochs": 3, "half_size_epochs": 1, "batch_size": 2, "crop": (32, 32)}
    return TrainingConfig(
        "unet", str(folder), base_channels=2, dropout=0.2, decoder_lr=0.01, **tiny
    )


@pytest.fixture(scope="session")
def finished(config, tmp_path_factory):
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("out") / "uninterrupted"
    train(config, out, validate_every=2)
    return out
