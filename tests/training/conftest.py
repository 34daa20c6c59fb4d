"""A tiny training, and weights to start one from."""

import pytest
import torch
from safetensors.torch import save_file

from segmodels.models.vgg16 import LAYERS
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from tests.support.datasets import write_camvid


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


@pytest.fixture(scope="session")
def vgg16_file(tmp_path_factory):
    """Weights of VGG16's shape with nothing learnt in them."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    tensors = {}
    torch.manual_seed(0)
    for name, before, after in zip(LAYERS, widths[:-1], widths[1:], strict=True):
        scale = (2 / (9 * before)) ** 0.5
        tensors[f"{name}.weight"] = (scale * torch.randn(after, before, 3, 3)).half()
        tensors[f"{name}.bias"] = torch.zeros(after).half()
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    save_file(tensors, path)
    return str(path)
