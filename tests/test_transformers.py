"""The bridge to transformers: its Auto classes and pipeline give what Segmenter gives."""

import importlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import FCN, CheckpointError, Segmenter, SegNet, UNet, load_model
from tests.support.networks import network, picture

transformers = pytest.importorskip("transformers")
NETWORKS = {
    "FCN": lambda: network(FCN),
    "U-Net": lambda: network(UNet, working_size=40),
    "U-Net upscaled": lambda: network(UNet, working_size=150),
    "U-Net with a minimum size": lambda: network(UNet, minimum_size=150),
    "unpadded U-Net": lambda: network(UNet, padding="valid", batch_norm=False),
    "grey SegNet": lambda: network(SegNet, in_channels=1),
}


@pytest.fixture(scope="module", autouse=True)
def bridge():
    """segmodels.transformers, which takes seconds to import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("segmodels.transformers")


@pytest.fixture(params=NETWORKS)
def model(request):
    return NETWORKS[request.param]()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def image():
    return Image.fromarray(picture(72, 95))


def test_the_auto_classes_give_the_class_map_of_segmenter(bridge, model, folder, image):
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert type(loaded) is bridge.SegmodelsForSemanticSegmentation
    assert type(loaded.network) is type(model)
    assert not loaded.training
    assert loaded.config.id2label == model.id2label
    with torch.no_grad():
        outputs = loaded(**processor(images=image, return_tensors="pt"))
    size = image.size[::-1]
    [class_map] = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
    expected = Segmenter(model, "cpu", "fp32")(image).class_map
    assert len(np.unique(expected)) > 1
    assert class_map.shape == expected.shape
    assert (class_map.numpy() != expected).mean() < 1e-3  # batch norms are folded there


def test_the_pipeline_gives_the_masks_of_segmenter(model, folder, image):
    segment = transformers.pipeline("image-segmentation", model=folder)
    expected = Segmenter(model, "cpu", "fp32")(image).class_map
    found = segment(image)
    assert {region["label"] for region in found} == {model.id2label[i] for i in np.unique(expected)}
    for region in found:
        mask = expected == model.label2id[region["label"]]
        assert ((np.array(region["mask"]) == 255) != mask).mean() < 1e-3


def test_what_is_saved_loads_with_segmodels_and_the_same_weights(folder, tmp_path):
    loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again")
    model = load_model(tmp_path / "again")
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_a_new_network_of_a_config_learns_from_labels(bridge):
    old = network(UNet)
    config = bridge.SegmodelsConfig.from_dict(old.config)
    model = transformers.AutoModelForSemanticSegmentation.from_config(config)
    assert model.network.config == old.config
    labels = torch.full((2, 24, 24), 255)
    labels[:, :12] = 1
    outputs = model.train()(torch.randn(2, 3, 24, 24), labels=labels)
    logits = outputs.logits[:, :, :12].permute(0, 2, 3, 1).reshape(-1, 3)
    expected = -logits.log_softmax(1)[:, 1].mean()
    torch.testing.assert_close(outputs.loss, expected)
    outputs.loss.backward()
    assert model.network.heatmaps.weight.grad.abs().max() > 0


def test_loading_is_as_strict_as_segmodels(tmp_path):
    network(UNet).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"base_channels": 8}))
    with pytest.raises(CheckpointError, match="does not match its config"):
        transformers.AutoModelForSemanticSegmentation.from_pretrained(str(tmp_path))


def test_half_precision_is_the_callers_choice(tmp_path):
    network(UNet).save_pretrained(tmp_path)
    auto = transformers.AutoModelForSemanticSegmentation
    assert auto.from_pretrained(str(tmp_path)).dtype == torch.float32
    assert auto.from_pretrained(str(tmp_path), dtype="bfloat16").dtype == torch.bfloat16


def test_images_of_several_sizes_are_refused(tmp_path):
    network(UNet).save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"same size after resizing.*: preprocess them one by one"):
        processor([picture(20, 30), picture(30, 20)])


@pytest.mark.weights
@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[1] / "weights_card").glob("*/config.json")), ids=str
)
def test_the_published_configs_are_known_to_transformers(bridge, folder):
    config = transformers.AutoConfig.from_pretrained(str(folder.parent))
    assert type(config) is bridge.SegmodelsConfig
    assert config.id2label == dict(enumerate(config.class_names))
