"""A tiny training, and weights to start one from."""

import pytest

from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from tests.support.datasets import write_camvid
from tests.support.trainings import pixels_for_plots  # noqa: F401


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
