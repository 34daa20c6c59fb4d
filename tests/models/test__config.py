"""config.json: whatever stands in it, there is a network or a CheckpointError."""

import json
import resource
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from segmodels import FCN, CheckpointError, SegNet, UNet, load_model
from segmodels.models.base import SegmentationModel

CLASSES = ["cell", "background"]
NETWORKS = {
    "UNet": UNet(class_names=CLASSES, base_channels=1),
    "FCN": FCN(class_names=CLASSES, head_channels=1, stride=32),
    "SegNet": SegNet(class_names=CLASSES, variant="basic"),
}
KEYS = sorted({key for network in NETWORKS.values() for key in network.config})

numbers = st.integers() | st.integers(-2, 600) | st.floats() | st.just(10**400)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
values = st.recursive(
    scalars | st.sampled_from([*CLASSES, *NETWORKS, "vgg16", "plain", "basic", "valid", 8, 16]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
changes = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), values, max_size=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each network as save_pretrained writes it."""
    places = {name: tmp_path_factory.mktemp(name) for name in NETWORKS}
    for name, network in NETWORKS.items():
        network.save_pretrained(places[name])
    return places


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(NETWORKS)), changes, st.lists(st.sampled_from(KEYS), max_size=2))
def test_any_config_ends_in_a_network_or_a_checkpoint_error(folders, name, changed, removed):
    config = {k: v for k, v in (NETWORKS[name].config | changed).items() if k not in removed}
    (folders[name] / "config.json").write_text(json.dumps(config))
    network, message = None, ""
    try:
        network = load_model(folders[name])
    except CheckpointError as error:
        message = str(error)
    assert isinstance(network, SegmentationModel) or "config.json" in message
    assert len(message) < 2000


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_any_bytes_for_a_config_end_in_a_checkpoint_error(folders, content):
    (folders["UNet"] / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(folders["UNet"])


def test_a_config_of_a_megabyte_is_not_even_parsed(folders):
    (folders["UNet"] / "config.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(CheckpointError, match=r"config\.json has 1,048,578 bytes, more than"):
        load_model(folders["UNet"])


def test_a_million_classes_are_refused_by_name(folders):
    config = NETWORKS["UNet"].config | {"class_names": [str(number) for number in range(10**6)]}
    (folders["UNet"] / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="class_names can have at most 255 names"):
        load_model(folders["UNet"])


@pytest.mark.parametrize("strict", [True, False])
def test_the_largest_network_takes_no_memory_before_its_weights_are_seen(tmp_path, strict):
    config = NETWORKS["UNet"].config | {"base_channels": 512}  # 2e9 parameters, 8 GB
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"other": torch.zeros(3)}, tmp_path / "model.safetensors")
    before = peak_memory()
    with pytest.raises(CheckpointError, match="missing"):
        load_model(tmp_path, strict=strict)
    assert peak_memory() - before < 100e6


def peak_memory():
    """Bytes of this process's largest resident set so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
