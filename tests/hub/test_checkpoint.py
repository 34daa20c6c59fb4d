import json
import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from segmodels import CheckpointError, UNet, load_model
from segmodels.hub.checkpoint import read_weights

CLASSES = ["cell", "background"]


def small():
    return UNet(class_names=CLASSES, base_channels=1)


@pytest.fixture
def folder(tmp_path):
    """A small U-Net as save_pretrained writes it."""
    torch.manual_seed(0)
    small().save_pretrained(tmp_path / "unet-cells")
    return tmp_path / "unet-cells"


def edit_config(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_missing_key_is_named(folder):
    edit_weights(folder, lambda tensors: tensors.pop("heatmaps.bias"))
    message = (
        r"model\.safetensors does not match its config\.json; tensors: 1 missing \(heatmaps\.bias"
    )
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_a_key_too_many_is_named(folder):
    edit_weights(folder, lambda tensors: tensors.update(more=torch.zeros(1)))
    with pytest.raises(CheckpointError, match=r"1 unexpected \(more\)"):
        load_model(folder)


def test_a_misshapen_key_is_named(folder):
    edit_weights(folder, lambda tensors: tensors.update({"heatmaps.bias": torch.zeros(3)}))
    message = r"1 with a different shape \(heatmaps\.bias \[3\] instead of \[2\]\)"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_many_wrong_keys_are_counted(folder):
    edit_config(folder, base_channels=2)
    with pytest.raises(CheckpointError, match=r"with a different shape \(.*, \.\.\.\)") as error:
        load_model(folder)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("strict", [True, False])
def test_values_that_are_not_finite_are_named(folder, value, strict):
    edit_weights(folder, lambda tensors: tensors["heatmaps.bias"].fill_(value))
    with pytest.raises(CheckpointError, match=r"safetensors: heatmaps\.bias has values that are"):
        load_model(folder, strict=strict)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_file_is_named(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a complete safetensors"):
        load_model(folder)


def test_without_strict_what_fits_is_taken_and_the_rest_left(folder):
    def edit(tensors):
        del tensors["decoder1.0.bias"]
        tensors["heatmaps.bias"] = torch.zeros(3)
        tensors["more"] = torch.zeros(1)
        tensors["upconv1.bias"].fill_(7)

    edit_weights(folder, edit)
    loaded = load_model(folder, strict=False)
    saved = load_file(folder / "model.safetensors")
    state = loaded.state_dict()
    assert set(state) - set(saved) == {"decoder1.0.bias"}
    for name in set(saved) & set(state) - {"heatmaps.bias"}:
        assert torch.equal(state[name], saved[name])
    assert state["upconv1.bias"].tolist() == [7]
    assert state["heatmaps.bias"].tolist() == [0, 0]
    assert state["decoder1.0.bias"].tolist() == [0]
    assert not loaded.training


def test_weights_take_the_networks_dtype(folder):
    expected = small().double().state_dict()
    tensors = read_weights(folder / "model.safetensors", expected, "cpu", strict=True)
    assert {name: t.dtype for name, t in tensors.items()} == {
        name: t.dtype for name, t in expected.items()
    }


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_read(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert type(load_model(folder)) is UNet
    (folder / "model.safetensors").unlink()
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"has no model\.safetensors.*pickles are not"):
            load_model(folder, strict=strict)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{folder.name} has no {name}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"config\.json is not readable JSON"),
        ('{"architectures": ', r"config\.json is not readable JSON"),
        ("[" * 100_000, r"config\.json is not readable JSON"),
        ("[1, 2]", r"config\.json must contain a JSON object, got list"),
        ("{}", "describes none of FCN, SegNet, UNet"),
    ],
)
def test_a_broken_config_is_named(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_a_newer_format_asks_for_an_upgrade(folder):
    edit_config(folder, segmodels_format=2)
    with pytest.raises(CheckpointError, match=r"format 2; this segmodels reads format 1: upgrade"):
        load_model(folder)


def test_what_is_neither_a_folder_nor_an_id_says_so(tmp_path):
    for source in (tmp_path / "absent", "a/b/c", "no spaces allowed"):
        with pytest.raises(
            CheckpointError, match=rf"there is no folder {source}, and .* is not a Hub id"
        ):
            load_model(source)


@pytest.mark.parametrize("source", ["unet-cels", "models/unet-cels", "./models/unet-cels"])
def test_a_misspelt_folder_is_called_that_with_the_closest_name(folder, monkeypatch, source):
    folder.rename(folder.parent / "unet-cells")
    (folder.parent / "models" / "unet-cells").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close = source.replace("cels", "cells").removeprefix("./")
    with pytest.raises(CheckpointError) as caught:
        load_model(source)
    assert str(caught.value).startswith(f"there is no folder {source} (did you mean {close}?)")


def test_a_source_with_a_revision_is_not_taken_for_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as caught:
        load_model(f"{folder.parent.name}/unet-cels", revision="v1")
    assert "folder" not in str(caught.value)


def test_a_config_with_a_byte_order_mark_is_read(folder):
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_model(folder).class_names == CLASSES


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id2label", {"0": "background", "1": "cell"}),
        ("id2label", {"0": "cell"}),
        ("id2label", ["cell", "background"]),
        ("label2id", {"cell": 1, "background": 0}),
        ("num_labels", 3),
    ],
)
def test_labels_that_contradict_the_class_names_are_refused(folder, key, value):
    edit_config(folder, **{key: value})
    with pytest.raises(CheckpointError, match=rf"config\.json: {key} .* contradicts class_names"):
        load_model(folder)


def test_a_model_in_a_subfolder_loads(folder):
    assert load_model(folder.parent, subfolder=folder.name).class_names == CLASSES
    with pytest.raises(CheckpointError, match=r"absent has no config\.json"):
        load_model(folder.parent, subfolder="absent")
    for outside in ("../" + folder.name, str(folder)):
        with pytest.raises(ValueError, match="subfolder must be a path inside the repository"):
            load_model(folder.parent, subfolder=outside)


def test_a_repository_that_is_not_cached_says_so(tmp_path):
    message = r"config\.json of org/unet-cells \(revision main\) is not in the cache"
    with pytest.raises(CheckpointError, match=message):
        load_model("org/unet-cells", cache_dir=tmp_path, local_files_only=True)


def test_a_cached_repository_loads_without_the_hub(folder, tmp_path):
    commit = "0123456789" * 4
    repository = tmp_path / "cache" / "models--org--unet-cells"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    cached = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    for revision in ("v1", commit):
        loaded = UNet.from_pretrained("org/unet-cells", revision=revision, **cached)
        assert loaded.class_names == CLASSES
    with pytest.raises(CheckpointError, match="not in the cache"):
        UNet.from_pretrained("org/unet-cells", revision="v2", **cached)


# The header of a safetensors file, which is 8 bytes of length, JSON, and the tensors' bytes


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_another_type_are_named(folder, dtype, strict):
    def convert(tensors):
        for name in tensors if not strict else ["heatmaps.bias"]:
            tensors[name] = tensors[name].to(dtype)

    edit_weights(folder, convert)
    message = r"with a different dtype \(.* instead of float32"
    if not strict and dtype == torch.int64:
        loaded = load_model(folder, strict=False)  # the counters of the batch norms fit
        assert loaded.heatmaps.bias.dtype == torch.float32
        return
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, strict=strict)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floats_of_any_common_size_are_taken(folder, dtype):
    def convert(tensors):
        tensors["heatmaps.bias"] = torch.tensor([0.5, -2], dtype=dtype)

    edit_weights(folder, convert)
    assert load_model(folder).heatmaps.bias.tolist() == [0.5, -2]


def test_a_number_beyond_the_networks_dtype_is_not_finite(folder):
    large = torch.tensor([1e300, 0], dtype=torch.float64)
    edit_weights(folder, lambda tensors: tensors.update({"heatmaps.bias": large}))
    with pytest.raises(CheckpointError, match=r"not finite .* as torch\.float32"):
        load_model(folder)


def with_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_header_that_claims_more_than_the_file_has_is_refused(folder):
    size = 100 * 2**30
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    with_header(folder / "model.safetensors", {"heatmaps.bias": entry})
    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        load_model(folder)


def test_a_huge_file_is_refused_by_its_header_alone(folder):
    size = 8 * 2**30
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    path = folder / "model.safetensors"
    with_header(path, {"heatmaps.bias": entry})
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + size)  # a hole: it takes no room on the disk
    with pytest.raises(
        CheckpointError, match=r"with a different shape \(heatmaps\.bias \[2147483648\]"
    ):
        load_model(folder)


def test_a_header_longer_than_any_network_needs_is_not_parsed(folder):
    with_header(folder / "model.safetensors", b" " * (2 << 20))
    with pytest.raises(CheckpointError, match="header length of 2,097,152 bytes exceeds the limit"):
        load_model(folder)


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "U8", "F4", "x"]) | st.integers(),
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3) | st.text(max_size=2),
        "data_offsets": st.lists(st.integers(0, 64) | st.integers(), min_size=1, max_size=3),
    }
)
names = st.sampled_from(["heatmaps.bias", "heatmaps.weight", "__metadata__"]) | st.text(max_size=6)
FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(st.dictionaries(names, entries, max_size=4), st.binary(max_size=64), st.booleans())
def test_any_header_ends_in_weights_or_a_checkpoint_error(tmp_path, header, data, strict):
    path = tmp_path / "model.safetensors"
    with_header(path, header, data)
    expected = {"heatmaps.bias": torch.empty(2, device="meta")}
    outcome_of_reading(path, expected, strict)


@FUZZ
@given(st.data())
def test_any_damage_to_a_file_ends_in_weights_or_a_checkpoint_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    state = {"heatmaps.bias": torch.zeros(2), "heatmaps.weight": torch.ones(2, 1, 1, 1)}
    save_file(state, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, 20) | st.just(len(content)))])
    outcome_of_reading(path, state, data.draw(st.booleans()))


def outcome_of_reading(path, expected, strict):
    tensors, message = {}, ""
    try:
        tensors = read_weights(path, expected, "cpu", strict)
    except CheckpointError as error:
        message = str(error)
    assert tensors or path.name in message
    assert len(message) < 2000
    assert all(tensor.isfinite().all() for tensor in tensors.values())
