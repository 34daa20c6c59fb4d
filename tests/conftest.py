"""Fixtures that tests of several folders share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segmodels import FCN, SegNet, UNet
from segmodels.demo.service import ComparisonService
from segmodels.models.vgg16 import LAYERS
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from tests.support.datasets import write_camvid, write_msrc
from tests.support.hub_client import Client
from tests.support.hub_server import LoopbackHub
from tests.support.hub_state import User
from tests.support.networks import tiny_network


def pytest_collection_modifyitems(items):
    if list(Path(__file__).parents[1].glob("weights_card/*/model.safetensors")):
        return
    missing = pytest.mark.skip(reason="weights_card/ holds no weights here (source distribution)")
    for item in items:
        if item.get_closest_marker("weights"):
            item.add_marker(missing)


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


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """6 pictures for training, 2 for validation, 2 for testing, 48 x 40 pixels."""
    return write_camvid(tmp_path / "camvid", train=6, val=2, test=2)


@pytest.fixture
def msrc(tmp_path: Path) -> Path:
    """The same pictures in the other layout."""
    return write_msrc(tmp_path / "msrc", train=6, val=2, test=2)


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


@pytest.fixture(scope="session")
def hub():
    """A Hub on the loopback interface. Alice may write to org, Bob may only read there."""
    users = {
        "alice-token": User("alice", writes=("alice", "org")),
        "bob-token": User("bob", writes=("bob",), reads=("org",)),
    }
    server = LoopbackHub(users)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(hub, tmp_path_factory):
    """The real client, logged in as nobody."""
    process = Client(hub.url, tmp_path_factory.mktemp("hf-home"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def networks():
    """One of each for the road scene, and one for another."""
    return [
        tiny_network(FCN, "fcn-camvid", at_once=False),
        tiny_network(UNet, "unet-camvid"),
        tiny_network(SegNet, "segnet-camvid", dropout=0.5),
        tiny_network(UNet, "unet-msrc", "everyday", ["cat", "dog", "sky"]),
    ]


@pytest.fixture
def service(networks):
    return ComparisonService(networks)


@pytest.fixture
def street(tmp_path):
    """A picture file, 60 x 40 pixels."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 8, 3), np.uint8)
    path = tmp_path / "my street.png"
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return str(path)
