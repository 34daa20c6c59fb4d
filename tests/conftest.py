"""Fixtures that tests of several folders share."""

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from xdist.scheduler import LoadScopeScheduling

from segmodels.models.vgg16 import LAYERS
from tests.support.datasets import write_camvid, write_msrc
from tests.support.hub_client import Client
from tests.support.hub_server import LoopbackHub
from tests.support.hub_state import User


class GroupScheduling(LoadScopeScheduling):
    """Give a worker a file's tests, which share fixtures, or all browser tests."""

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        return "browser" if path.startswith("tests/e2e/") else path


@pytest.hookimpl(optionalhook=True)  # as with -p no:xdist
def pytest_xdist_make_scheduler(config, log):
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items):
    """Skip the tests whose weights are missing, and start with those that take longest."""
    complete = any(Path(__file__).parents[1].glob("weights_card/*/model.safetensors"))
    skip = pytest.mark.skip(reason="weights_card/ holds no weights here (source distribution)")
    for item in items:
        if item.get_closest_marker("weights") and not complete:
            item.add_marker(skip)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.get_closest_marker("browser"), item.path not in slow))


def pytest_collection_finish():
    """Keep the garbage collector from searching all imported modules again and again."""
    gc.freeze()


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """6 pictures for training, 2 for validation, 2 for testing, 48 x 40 pixels."""
    return write_camvid(tmp_path / "camvid", train=6, val=2, test=2)


@pytest.fixture
def msrc(tmp_path: Path) -> Path:
    """The same pictures in the other layout."""
    return write_msrc(tmp_path / "msrc", train=6, val=2, test=2)


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
