"""Pulling, by the real huggingface_hub in its own process, from a Hub on the loopback interface."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from segmodels import UNet
from tests.support.hub_client import Client
from tests.support.hub_state import Fault

ALICE = "alice-token"
# Loads a network; gives its first class, and the paths of the cache's files that it is made of.
LOAD = """
from pathlib import Path
from segmodels import load_model
model = load_model(name, cache_dir=cache, **options)
result = [model.class_names[0], sorted(p.name for p in model._source.iterdir())]
"""


@pytest.fixture
def publish(hub, tmp_path):
    """Commit a small U-Net, by hand, to a repository of the server; the commit."""
    number = iter(range(100))

    def commit(name, first_class="cell", *, private=False, ref="main", edit=None):
        folder = tmp_path / f"model{next(number)}"
        torch.manual_seed(0)
        UNet(class_names=[first_class, "other"], base_channels=1).save_pretrained(folder)
        if edit is not None:
            edit(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return hub.publish(name, files, private=private, ref=ref)

    return commit


@pytest.fixture
def pull(client, tmp_path):
    """Load in the client's process, with a cache of this test's own."""

    def load(name, client=client, **options):
        return client.run(LOAD, name=name, cache=str(tmp_path / "cache"), options=options)

    return load


@pytest.fixture
def asked(hub):
    """The requests since the last look at them."""
    seen = len(hub.requests)

    def since():
        nonlocal seen
        new, seen = hub.requests[seen:], len(hub.requests)
        return new

    return since


def downloads(requests):
    return [request.rpartition("/")[2] for request in requests if request.startswith("GET")]


def test_config_and_weights_are_downloaded_once_and_nothing_else(publish, pull, asked):
    commit = publish("org/once")
    assert pull("org/once").result == ["cell", ["config.json", "model.safetensors"]]
    first = asked()
    assert downloads(first) == ["config.json", "model.safetensors"]
    assert not any(".bin" in request or ".pt" in request for request in first)
    assert pull("org/once").result[0] == "cell"
    # One question, whether main is still what it was.
    assert asked() == ["HEAD /org/once/resolve/main/config.json"]
    assert pull("org/once", revision=commit).result[0] == "cell"
    assert pull("org/once", local_files_only=True).result[0] == "cell"
    assert asked() == []  # a commit does not change
    assert pull("org/once", force_download=True).result[0] == "cell"
    assert downloads(asked()) == ["config.json", "model.safetensors"]


def test_branches_tags_and_commits_are_found(publish, pull):
    old = publish("org/revisions", "old")
    publish("org/revisions", "new")
    publish("org/revisions", "tried", ref="next/try")
    for revision, name in ((None, "new"), (old, "old"), ("next/try", "tried"), ("main", "new")):
        assert pull("org/revisions", revision=revision).result[0] == name
        assert pull("org/revisions", revision=revision, local_files_only=True).result[0] == name
    answer = pull("org/revisions", revision="v9")
    assert answer.error == "CheckpointError"
    assert "org/revisions on the Hub has no revision 'v9'" in answer.message


def test_a_model_in_a_subfolder_of_a_repository_loads(hub, pull, asked, tmp_path):
    UNet(class_names=["cell", "other"], base_channels=1).save_pretrained(tmp_path)
    files = {f"nets/small/{path.name}": path.read_bytes() for path in tmp_path.glob("*.*")}
    commit = hub.publish("org/many", files)
    for options in ({}, {"revision": commit}, {"local_files_only": True}):
        answer = pull("org/many", subfolder="nets/small", **options)
        assert answer.result == ["cell", ["config.json", "model.safetensors"]], answer.message
    assert downloads(asked()) == ["config.json", "model.safetensors"]
    assert "has no config.json in revision main" in pull("org/many").message


def test_only_what_has_changed_is_downloaded_again(publish, pull, asked):
    publish("org/renamed", "old name")
    pull("org/renamed")
    asked()
    publish("org/renamed", "new name")  # other config, same weights
    assert pull("org/renamed").result[0] == "new name"
    assert downloads(asked()) == ["config.json"]


def test_a_push_between_two_files_does_not_mix_them(hub, publish, pull):
    publish("org/moving", "first")

    def push_meanwhile():
        publish("org/moving", "second", edit=widen)

    hub.then["GET .*/config.json"] = push_meanwhile
    assert pull("org/moving").result[0] == "first"
    assert pull("org/moving").result[0] == "second"


def widen(folder):
    """Another network than the first: two channels instead of one."""
    UNet(class_names=["second", "other"], base_channels=2).save_pretrained(folder)


def test_a_private_repository_needs_a_token_that_may_read_it(publish, pull):
    publish("org/private", private=True)
    for token in (None, "stolen"):
        answer = pull("org/private", token=token)
        assert answer.error.endswith("Error")
        assert "org/private does not exist on the Hub, or you have no access" in answer.message
        assert "`hf auth login`" in answer.message
    assert pull("org/private", token="bob-token").result[0] == "cell"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "org/{} on the Hub has no config.json in revision main"),
        ("model.safetensors", "org/{} on the Hub has no model.safetensors in revision main"),
    ],
)
def test_a_missing_file_is_named_and_no_pickle_is_asked_for(publish, pull, asked, missing, message):
    name = f"without-{missing.partition('.')[0]}"

    def leave_out(folder):
        (folder / missing).unlink()
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")

    publish(f"org/{name}", edit=leave_out)
    answer = pull(f"org/{name}")
    assert answer.error == "CheckpointError"
    assert message.format(name) in answer.message
    assert "pickles are not read" in answer.message
    assert not any("bin" in request for request in asked())


def test_a_missing_repository_says_what_to_check(pull):
    answer = pull("org/nowhere")
    assert "org/nowhere does not exist on the Hub" in answer.message


def test_a_repository_of_the_plain_mixin_loads(hub, client, tmp_path):
    code = """
from huggingface_hub import PyTorchModelHubMixin
from segmodels import SegNet, load_model
model = SegNet(class_names=["a", "b"], variant="basic")
PyTorchModelHubMixin.push_to_hub(model, "org/plain", token=token)
loaded = [load_model("org/plain", cache_dir=cache), SegNet.from_pretrained("org/plain")]
result = [type(each).__name__ for each in loaded]
"""
    # The mixin's own saving: no architectures in its config.
    code = code.replace(
        "PyTorchModelHubMixin.push_to_hub(model",
        "SegNet.save_pretrained = PyTorchModelHubMixin.save_pretrained\n"
        "PyTorchModelHubMixin.push_to_hub(model",
    )
    names = {"token": ALICE, "cache": str(tmp_path / "cache")}
    assert client.result(code + "del SegNet.save_pretrained\n", **names) == ["SegNet", "SegNet"]
    assert "architectures" not in json.loads(hub.file("org/plain", "config.json"))


def test_a_file_larger_than_its_network_is_not_downloaded(publish, pull, asked):
    def blow_up(folder):
        (folder / "model.safetensors").write_bytes(b"\0" * 3_000_000)

    publish("org/heavy", edit=blow_up)
    answer = pull("org/heavy")
    assert "model.safetensors of org/heavy has 3,000,000 bytes, more than" in answer.message
    assert downloads(asked()) == ["config.json"]


# A server that fails


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_another_file_than_announced_is_refused_and_not_kept(hub, publish, pull, file):
    name = f"org/damaged-{file.partition('.')[0]}"
    publish(name)
    hub.faults[:] = [Fault(f"GET .*/{file}", "corrupt")]
    answer = pull(name)
    assert answer.error == "CheckpointError"
    assert f"{file} of {name} failed its checksum (got " in answer.message
    assert pull(name).result[0] == "cell"


def test_a_truncated_file_is_refused(publish, pull):
    def cut_off(folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])

    publish("org/truncated", edit=cut_off)
    answer = pull("org/truncated")
    assert answer.error == "CheckpointError"
    assert "model.safetensors is not a complete safetensors file" in answer.message


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("HEAD .*/config.json", 503)],
        [Fault("HEAD .*/config.json", "close")],
        [Fault("GET .*/model.safetensors", 500)],
        [Fault("GET .*/model.safetensors", "close")],
        [Fault("GET .*/model.safetensors", "cut")],
    ],
    ids=lambda faults: f"{faults[0].pattern[:4].strip()}-{faults[0].kind}",
)
def test_a_server_that_stumbles_and_comes_back_is_asked_again(hub, publish, pull, faults, request):
    name = f"org/stumbles-{request.node.callspec.id}"
    publish(name)
    hub.faults[:] = faults
    answer = pull(name)
    assert answer.result == ["cell", ["config.json", "model.safetensors"]], answer.message
    assert not [fault for fault in hub.faults if fault.times]


@pytest.mark.parametrize("kind", [500, "close"])
def test_a_server_that_keeps_failing_is_reported_in_seconds(hub, publish, pull, kind):
    publish(f"org/down-{kind}")
    hub.faults[:] = [Fault("HEAD", kind, times=100)]
    began = time.monotonic()
    answer = pull(f"org/down-{kind}")
    hub.faults[:] = []
    assert time.monotonic() - began < 15
    assert answer.error == "HubUnavailableError"
    assert f"the Hub ({hub.url}) " in answer.message
    assert "Try again later" in answer.message


@pytest.mark.parametrize("kind", [500, "close"])
def test_a_failing_server_does_not_matter_to_what_is_cached(hub, publish, pull, kind):
    publish(f"org/kept-{kind}")
    pull(f"org/kept-{kind}")
    hub.faults[:] = [Fault("HEAD", kind, times=100)]
    answer = pull(f"org/kept-{kind}")
    hub.faults[:] = []
    assert answer.result[0] == "cell"
    assert "Using the cached copy" in answer.err


def test_a_server_that_dies_half_way_leaves_the_former_commit_in_use(hub, publish, pull):
    publish("org/halfway", "first")
    pull("org/halfway")
    publish("org/halfway", "second", edit=widen)
    hub.faults[:] = [Fault("GET .*/model.safetensors", 500, times=100)]
    answer = pull("org/halfway")
    assert answer.result[0] == "first"
    assert "Using the cached copy" in answer.err
    hub.faults[:] = []
    assert pull("org/halfway", local_files_only=True).result[0] == "first"
    assert pull("org/halfway").result[0] == "second"


def test_an_unreachable_hub_is_reported_in_seconds_and_the_cached_copy_used(hub, publish, pull):
    publish("org/offline")
    pull("org/offline")
    hub.stop()
    try:
        began = time.monotonic()
        cached = pull("org/offline")
        missing = pull("org/never-seen")
        took = time.monotonic() - began
    finally:
        hub.start()
    assert cached.result[0] == "cell"
    assert missing.error == "HubUnavailableError"
    assert "cannot be reached" in missing.message
    assert took < 15
    assert pull("org/offline").result[0] == "cell"


def test_offline_the_network_is_never_touched(hub, publish, pull, asked, tmp_path):
    publish("org/offline-mode")
    pull("org/offline-mode")
    asked()
    offline = Client(hub.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    try:
        assert pull("org/offline-mode", offline).result[0] == "cell"
        answer = pull("org/never-seen", offline)
    finally:
        offline.close()
    assert "is not in the cache" in answer.message
    assert asked() == []


def test_a_download_shows_its_progress(publish, client, tmp_path):
    publish("org/progress")
    code = """
import sys
sys.stderr.isatty = lambda: True
from segmodels import load_model
load_model("org/progress", cache_dir=cache)
"""
    assert "model.safetensors: 100%" in client.run(code, cache=str(tmp_path / "cache")).err


def test_weights_that_are_not_numbers_are_refused_and_not_remembered(publish, pull):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["heatmaps.bias"][0] = float("nan")
        save_file(tensors, folder / "model.safetensors")

    publish("org/spoiled", "good")
    pull("org/spoiled")
    publish("org/spoiled", "bad", edit=spoil)
    answer = pull("org/spoiled")
    assert "heatmaps.bias has values that are not finite" in answer.message
    assert pull("org/spoiled", local_files_only=True).result[0] == "good"
