"""Fixtures that tests of several folders share."""

from pathlib import Path

import pytest

from tests.support.datasets import write_camvid, write_msrc
from tests.support.hub_client import Client
from tests.support.hub_server import LoopbackHub
from tests.support.hub_state import User


def pytest_collection_modifyitems(items):
    if list(Path(__file__).parents[1].glob("weights_card/*/model.safetensors")):
        return
    missing = pytest.mark.skip(reason="weights_card/ holds no weights here (source distribution)")
    for item in items:
        if item.get_closest_marker("weights"):
            item.add_marker(missing)


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
