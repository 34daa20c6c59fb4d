"""What was pushed, read by others than our own code: olah, a mirror of the Hub, in front of the
loopback Hub, and huggingface_hub's and safetensors' own readers behind it."""

import socket
import subprocess
import sys
import time

import pytest

from segmodels import UNet
from tests.support.hub_client import Client
from tests.support.serving import PATIENCE, free_port

PUSH = """
from segmodels import UNet
model = UNet.from_pretrained(folder)
result = model.push_to_hub(name, token="alice-token", private=private)
"""
PULL = """
from segmodels import load_model
model = load_model(name, cache_dir=cache, token=token, revision=revision)
result = model.class_names
"""
SNAPSHOT = """
import json
from pathlib import Path
from huggingface_hub import ModelCard, snapshot_download
from safetensors import safe_open
folder = Path(snapshot_download(name, cache_dir=cache))
with safe_open(folder / "model.safetensors", "np") as file:
    parameters = sum(file.get_tensor(key).size for key in file.keys())
config = json.loads((folder / "config.json").read_text())
card = ModelCard.load(folder / "README.md")
files = [path.name for path in folder.iterdir()]
result = [parameters, config["id2label"], card.data.library_name, files]
"""


@pytest.fixture(scope="module")
def mirror(hub, tmp_path_factory):
    """A client whose Hub is olah, whose Hub is the loopback one."""
    home = tmp_path_factory.mktemp("olah")
    port = free_port()
    command = [sys.executable, "-m", "olah.server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--hf-scheme", "http", "--hf-netloc", hub.url.removeprefix("http://")]
    command += ["--hf-lfs-netloc", hub.url.removeprefix("http://"), "--metadata-cache-ttl", "0"]
    command += ["--repos-path", str(home / "repos"), "--log-path", str(home / "logs")]
    with open(home / "output", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=home)
    client = Client(f"http://127.0.0.1:{port}", home / "hf-home")
    try:
        _wait_for(port, process)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(PATIENCE)


def _wait_for(port, process):
    for _ in range(10 * PATIENCE):
        assert process.poll() is None, "olah has stopped"
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"olah did not start within {PATIENCE} seconds")


@pytest.fixture
def pushed(client, tmp_path):
    """Push a small U-Net with the real client, to the Hub itself."""

    def push(name, private=False):
        folder = tmp_path / "model"
        UNet(class_names=["cell", "other"], base_channels=1).save_pretrained(folder)
        url = client.result(PUSH, folder=str(folder), name=name, private=private)
        return url.rpartition("/")[2]

    return push


def test_a_network_comes_through_the_mirror_by_name_and_by_commit(pushed, mirror, tmp_path):
    commit = pushed("org/mirrored")
    for number, revision in enumerate((None, "main", commit)):
        names = {"name": "org/mirrored", "token": None, "revision": revision}
        names["cache"] = str(tmp_path / f"cache{number}")
        assert mirror.result(PULL, **names) == ["cell", "other"]


def test_a_private_network_comes_through_the_mirror_for_those_who_may(pushed, mirror, tmp_path):
    pushed("org/mirrored-private", private=True)
    names = {"name": "org/mirrored-private", "revision": None, "cache": str(tmp_path / "cache")}
    answer = mirror.run(PULL, token=None, **names)
    assert "org/mirrored-private" in answer.message
    assert answer.error.endswith("Error")
    assert mirror.result(PULL, token="alice-token", **names) == ["cell", "other"]


def test_other_readers_find_config_weights_and_card(pushed, mirror, tmp_path):
    pushed("org/read-by-others")
    names = {"name": "org/read-by-others", "cache": str(tmp_path / "cache")}
    parameters, id2label, library, files = mirror.result(SNAPSHOT, **names)
    expected = UNet(class_names=["cell", "other"], base_channels=1).state_dict()
    assert parameters == sum(tensor.numel() for tensor in expected.values())
    assert id2label == {"0": "cell", "1": "other"}
    assert library == "segmodels"
    ours = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert set(files) == {*ours, ".gitattributes"}


def test_a_missing_repository_is_reported_behind_the_mirror_too(mirror, tmp_path):
    names = {"name": "org/not-there", "token": None, "revision": None}
    answer = mirror.run(PULL, cache=str(tmp_path / "cache"), **names)
    assert answer.error.endswith("Error")
    assert "org/not-there" in answer.message
