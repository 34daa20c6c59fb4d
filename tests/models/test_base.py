import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from PIL import Image
from safetensors.torch import load_file, save_file

from segmodels import FCN, CheckpointError, Segmenter, SegNet, UNet, load_model
from segmodels.models import base
from segmodels.models.registry import register_model, unregister_model

CLASSES = ["cell", "background"]
FILES = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]


def small(**arguments):
    return UNet(**{"class_names": CLASSES, "base_channels": 1} | arguments)


@pytest.fixture
def folder(tmp_path):
    """A small U-Net as save_pretrained writes it."""
    torch.manual_seed(0)
    small().save_pretrained(tmp_path / "unet-cells")
    return tmp_path / "unet-cells"


def edit_config(folder, remove=(), **entries):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in remove}))


# Writing


def test_a_folder_holds_card_config_and_weights(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["UNet"]
    assert config["segmodels_format"] == 1
    assert config["id2label"] == {"0": "cell", "1": "background"}
    assert config["label2id"] == {"cell": 0, "background": 1}
    assert config["class_names"] == CLASSES
    assert config["base_channels"] == 1
    assert config["batch_norm"] is True
    assert config["working_size"] is None


def test_the_generated_card_names_library_task_and_paper(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "segmodels"
    assert card.data.pipeline_tag == "image-segmentation"
    assert {"semantic-segmentation", "unet"} <= set(card.data.tags)
    assert "https://arxiv.org/abs/1505.04597" in card.text


def test_a_card_that_is_there_stays(folder):
    (folder / "README.md").write_text("mine")
    small().save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_files_have_the_modes_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        small().save_pretrained(tmp_path / "new")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes == dict.fromkeys(FILES, mode)


def test_an_interrupted_save_leaves_the_old_files(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def half_a_file(tensors, path, metadata):
        # moved into place by renaming, so on the same disk
        assert Path(path).parent.parent == folder
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "save_file", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        small(dropout=0.5).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_that_are_not_finite_are_not_saved(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = small()
    model.heatmaps.bias.data[0] = 1e6  # beyond float16's 65,504
    with pytest.raises(CheckpointError, match=r"heatmaps\.bias has values that are not finite as"):
        model.save_pretrained(folder, dtype=torch.float16)
    model.heatmaps.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match="nothing was saved"):
        model.save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_names_may_be_in_any_script_and_look_like_markup(tmp_path):
    names = ["<script>alert(1)</script>", "天空", "ciel & mer", "a|b"]
    small(class_names=names).save_pretrained(tmp_path)
    assert load_model(tmp_path).class_names == names


def test_further_entries_of_the_config_are_written_and_ignored_on_loading(tmp_path):
    further = {"trained_on": "CamVid", "model_type": "unet", "_tool": 1, "extra": {"by": "us"}}
    small().save_pretrained(tmp_path, config=further)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["extra"] == {"by": "us", "trained_on": "CamVid"}
    assert config["model_type"] == "unet"
    assert config["class_names"] == CLASSES
    assert load_model(tmp_path).config == small().config


def test_preprocessing_is_written_in_the_format_of_transformers(tmp_path):
    small(image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 2], working_size=480).save_pretrained(
        tmp_path
    )
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {
        "do_resize": True,
        "size": {"longest_edge": 480},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 1, 2],
    }


def test_a_minimum_size_is_written_and_read(tmp_path):
    small(minimum_size=64).save_pretrained(tmp_path)
    preprocessing = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (preprocessing["do_resize"], preprocessing["minimum_size"]) == (True, 64)
    assert load_model(tmp_path).minimum_size == 64


def test_what_the_preprocessor_config_says_is_what_the_segmenter_does():
    model = small(image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 2], working_size=24)
    said = model.preprocessor_config
    original = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    # 12 x 16 to a longer edge of 24: 18 x 24
    image = Image.fromarray(original).resize((24, 18), said["resample"])
    pixels = np.array(image) * said["rescale_factor"]
    pixels = (pixels - said["image_mean"]) / said["image_std"]
    prepared = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        expected = model.eval()(prepared).softmax(1)[0].numpy()
    assert np.allclose(Segmenter(model, "cpu", "fp32").probabilities(original), expected, atol=1e-4)


# Reading


def test_load_model_gives_the_network_that_the_folder_holds(tmp_path):
    models = {
        "unet": small(),
        "fcn": FCN(class_names=CLASSES, head_channels=1, stride=32),
        "segnet": SegNet(class_names=CLASSES, variant="basic"),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        loaded = load_model(str(tmp_path / name))
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        (tmp_path / name / "model.safetensors").unlink()


def test_loading_and_saving_print_nothing(folder, capfd):
    load_model(folder).save_pretrained(folder)
    UNet.from_pretrained(folder)
    assert capfd.readouterr() == ("", "")


def test_strict_loading_draws_no_random_number(folder, monkeypatch):
    before = torch.get_rng_state()
    loaded = load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.device.type == "cpu" for parameter in loaded.parameters())


@pytest.mark.parametrize("place", ["meta", torch.device("meta")])
def test_map_location_is_honoured(folder, place):
    def devices(model):
        return {tensor.device.type for tensor in model.state_dict().values()}

    assert devices(load_model(folder)) == {"cpu"}
    assert devices(load_model(folder, map_location=place)) == {"meta"}
    tensors = load_file(folder / "model.safetensors")
    del tensors["heatmaps.bias"]  # which then comes from the initialisation
    save_file(tensors, folder / "model.safetensors")
    assert devices(load_model(folder, map_location=place, strict=False)) == {"meta"}


def test_loaded_weights_do_not_change_with_the_file(folder):
    loaded = load_model(folder)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    with open(folder / "model.safetensors", "r+b") as file:
        file.write(b"\0" * (folder / "model.safetensors").stat().st_size)
    assert all(torch.equal(t, before[name]) for name, t in loaded.state_dict().items())


def test_another_network_is_refused_by_name(folder):
    message = r"config\.json describes a UNet, not a SegNet: use UNet\.from_pretrained"
    with pytest.raises(CheckpointError, match=message):
        SegNet.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=message):
        SegNet.from_pretrained(folder, strict=False)


@pytest.mark.parametrize("names", [["BertModel"], [], ["UNet", "FCN"], "Bert", [{}], 5])
def test_an_unknown_architecture_is_named(folder, names):
    edit_config(folder, architectures=names)
    with pytest.raises(CheckpointError, match="describes none of FCN, SegNet, UNet"):
        load_model(folder)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"encoder": "resnet"}, "encoder must be one of"),
        ({"encoder": ["plain"]}, "encoder must be one of"),
        ({"base_channels": "1"}, "base_channels must be an int"),
        ({"base_channels": -1}, "base_channels must be an int"),
        ({"base_channels": 10**9}, "base_channels must be at most 512, got 1000000000"),
        ({"base_channels": 10**400}, "base_channels must be at most 512, got 1000"),
        ({"in_channels": 10**9}, "in_channels must be at most 1024"),
        ({"working_size": 10**9}, "working_size must be at most 100000"),
        ({"minimum_size": 0}, "minimum_size must be an int of at least 1, got 0"),
        ({"class_names": [str(n) for n in range(10**4)]}, "class_names must have 1 to 255 names"),
        ({"class_names": ["a", "x" * 201]}, "class_names must be 1 to 200 characters each"),
        ({"class_names": ["a", "\x1b[31mred"]}, "without line breaks and control characters"),
        ({"class_names": ["a", "\ud800"]}, "without line breaks and control characters"),
        ({"image_mean": [0.5, 0.5, 10**400]}, "image_mean must have a number"),
        ({"image_std": ["1", 1, 1]}, "image_std must have a number"),
        ({"batch_norm": "false"}, "batch_norm must be True or False"),
        ({"dropout": 2}, "dropout must be a number"),
        ({"class_names": None}, "class_names must be a list of str"),
        ({"palette": [["a", "b", "c"]] * 2}, "palette must have a colour"),
        ({"image_mean": 0.5}, "image_mean must have a number"),
        ({"working_size": "big"}, "working_size must be an int"),
        ({"remove": ["class_names"]}, "class_names"),
    ],
)
def test_a_config_of_unknown_values_is_a_checkpoint_error(folder, entries, message, strict):
    edit_config(folder, **entries)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(folder, strict=strict)
    assert "config.json does not describe a UNet" in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("key", ["base_chanels", "head_channels", "quantization_config"])
def test_an_unknown_entry_of_a_config_is_named_with_what_to_do(folder, key):
    edit_config(folder, **{key: 3})
    with pytest.raises(CheckpointError, match=rf"config\.json has entries .*\['{key}'\]\. Upgrade"):
        load_model(folder)


def test_what_other_tools_write_into_a_config_is_no_matter(folder):
    edit_config(folder, model_type="unet", transformers_version="5.0", num_labels=2, _commit_hash=1)
    assert load_model(folder).config == small().config


def test_a_folder_of_the_plain_mixin_loads(tmp_path):
    model = small(dropout=0.25).eval()
    PyTorchModelHubMixin.save_pretrained(model, tmp_path)
    assert "architectures" not in json.loads((tmp_path / "config.json").read_text())
    for loaded in (load_model(tmp_path), UNet.from_pretrained(tmp_path)):
        assert loaded.config == model.config
        pixels = torch.randn(1, 3, 20, 20)
        assert torch.equal(loaded(pixels), model(pixels))


def test_a_subclass_loads_as_itself_and_once_registered_through_its_base(tmp_path):
    class OurUNet(UNet):
        pass

    OurUNet(class_names=CLASSES, base_channels=1).save_pretrained(tmp_path)
    assert type(OurUNet.from_pretrained(tmp_path)) is OurUNet
    with pytest.raises(CheckpointError, match="describes none of FCN, SegNet, UNet"):
        UNet.from_pretrained(tmp_path)
    register_model("ours")(OurUNet)
    try:
        assert type(UNet.from_pretrained(tmp_path)) is OurUNet
    finally:
        unregister_model("ours")


def test_the_plain_mixins_config_needs_no_argument_but_the_names(tmp_path):
    SegNet(class_names=CLASSES).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"class_names": CLASSES}))
    assert type(SegNet.from_pretrained(tmp_path)) is SegNet
    with pytest.raises(CheckpointError, match="describes none of"):
        load_model(tmp_path)  # which of the three?
