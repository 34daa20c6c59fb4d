"""What FCN, U-Net and SegNet have in common, in every variant."""

import copy
import inspect
import json

import pytest
import torch
from torch import nn

from segmodels import FCN, SegNet, UNet, load_model

CLASSES = ["sky", "road", "car"]
VARIANTS = {
    "fcn32s": (FCN, {"stride": 32, "head_channels": 8}),
    "fcn16s": (FCN, {"stride": 16, "head_channels": 8}),
    "fcn8s": (FCN, {"head_channels": 8}),
    "unet": (UNet, {"base_channels": 4, "dropout": 0.25}),
    "unet-no-bn": (UNet, {"base_channels": 4, "batch_norm": False}),
    "unet-valid": (UNet, {"base_channels": 2, "batch_norm": False, "padding": "valid"}),
    "unet-vgg16": (UNet, {"encoder": "vgg16"}),
    "segnet": (SegNet, {"dropout": 0.5}),
    "segnet-basic": (SegNet, {"variant": "basic"}),
}
ANY_SIZE = [variant for variant in VARIANTS if variant != "unet-valid"]


def build(variant, **arguments):
    network, own = VARIANTS[variant]
    return network(class_names=CLASSES, **own, **arguments)


@pytest.fixture(scope="module")
def networks():
    """Each variant once, in evaluation mode, FCN's score layers random."""
    made = {}

    def network(variant):
        if variant not in made:
            torch.manual_seed(0)
            model = build(variant)
            for name, layer in model.named_modules():
                if name.startswith("score_"):
                    nn.init.kaiming_normal_(layer.weight)
            # The statistics of noise, so that activations keep their size in evaluation mode.
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = None
            with torch.no_grad():
                model.train()(torch.randn(2, 3, *working_size(variant)))
            made[variant] = model
        return made[variant].eval()

    return network


def in_float64(model):
    """A copy in which rounding moves no maximum of a pooling window: in float32 another order of
    summation, by batch size, threads or layout, may let SegNet's indices flip between near-equal
    values."""
    return copy.deepcopy(model).double()


def working_size(variant):
    return (190, 206) if variant == "unet-valid" else (64, 48)


@pytest.mark.parametrize("network", [FCN, UNet, SegNet])
def test_constructors_take_keywords_alone_and_keep_them_as_attributes(network):
    parameters = dict(inspect.signature(network.__init__).parameters)
    del parameters["self"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert [n for n, p in parameters.items() if p.default is p.empty] == ["class_names"]
    with torch.device("meta"):
        model = network(class_names=CLASSES)
    for name, parameter in parameters.items():
        value = getattr(model, name)
        if parameter.default not in (parameter.empty, None):
            assert value == parameter.default
            assert type(value) is type(parameter.default)
    with pytest.raises(TypeError):
        network(CLASSES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_argument_given_is_the_attribute(variant):
    shared = {
        "class_names": ["a", "b"],
        "in_channels": 2,
        "palette": [[1, 2, 3], [4, 5, 6]],
        "image_mean": [0.1, 0.2],
        "image_std": [0.3, 0.4],
        "working_size": 480,
        "minimum_size": 256,
    }
    network, own = VARIANTS[variant]
    with torch.device("meta"):
        model = network(**shared, **own)
    assert {name: getattr(model, name) for name in shared | own} == shared | own


@pytest.mark.parametrize("network", [FCN, UNet, SegNet])
def test_classes_have_ids_in_their_order(network):
    with torch.device("meta"):
        model = network(class_names=tuple(CLASSES))
    assert model.class_names == CLASSES
    assert model.num_classes == 3
    assert model.id2label == {0: "sky", 1: "road", 2: "car"}
    assert model.label2id == {"sky": 0, "road": 1, "car": 2}
    assert model.palette == [[70, 130, 180], [128, 64, 128], [0, 0, 190]]
    assert model.image_mean == [0.485, 0.456, 0.406]
    assert model.image_std == [0.229, 0.224, 0.225]
    assert model.working_size is None


@pytest.mark.parametrize("variant", ANY_SIZE)
@torch.no_grad()
def test_logits_have_the_images_size_whatever_it_is(variant, networks):
    model = networks(variant)
    for size in [(1, 1), (2, 3), (1, 33), (5, 31), (32, 32), (33, 2), (47, 65)]:
        logits = model(torch.randn(1, 3, *size))
        assert logits.shape == (1, 3, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("in_channels", [1, 5])
def test_images_may_have_any_number_of_channels(variant, in_channels):
    with torch.device("meta"):
        model = build(variant, in_channels=in_channels).eval()
        pixels = torch.empty(2, in_channels, 201, 222)
        # valid: 222 - 4 = 218, 109 - 4 = 105, 52 - 4 = 48, 24 - 4 = 20, 10 - 4 = 6, and upwards
        # 12 - 4 = 8, 16 - 4 = 12, 24 - 4 = 20, 40 - 4 = 36; 201 likewise: 4 at the bottom, 4 on top
        height, width = (4, 36) if variant == "unet-valid" else (201, 222)
        assert model(pixels).shape == (2, 3, height, width)
    assert model.image_mean == [0.5] * in_channels
    assert model.image_std == [0.25] * in_channels


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter(variant, networks):
    model = networks(variant).train()
    statistics = copy.deepcopy(dict(model.named_buffers()))
    model(torch.randn(2, 3, *working_size(variant))).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.ndim == 1 or parameter.grad.any(), name
    model.zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_are_raw(variant, networks):
    logits = networks(variant)(torch.randn(1, 3, *working_size(variant)))
    assert logits.min() < 0 < logits.max()  # no softmax, sigmoid or logarithm of one
    assert logits.logsumexp(1).std() > 1e-3
    assert logits.sum(1).std() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_evaluation_is_deterministic_and_images_of_a_batch_are_independent(variant, networks):
    model = in_float64(networks(variant))
    pixels = torch.randn(3, 3, *working_size(variant), dtype=torch.float64)
    kept = pixels.clone()
    together = model(pixels)
    assert torch.equal(pixels, kept)
    assert torch.equal(model(pixels), together)
    alone = torch.cat([model(image[None]) for image in pixels])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_channels_last_and_bfloat16_give_the_same_to_their_precision(variant, networks):
    model = networks(variant)
    pixels = torch.randn(1, 3, *working_size(variant))
    last = pixels.contiguous(memory_format=torch.channels_last)
    exact = in_float64(model)
    torch.testing.assert_close(exact(last.double()), exact(pixels.double()), rtol=1e-9, atol=1e-9)
    expected = model(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(last)
    assert half.dtype == torch.bfloat16
    # 8 bits of mantissa over up to 26 layers; SegNet's indices flip between near-equal values
    deviation = (half.float() - expected).std() / expected.std()
    assert deviation < (0.8 if "segnet" in variant else 0.15)


@pytest.mark.parametrize("variant", ["fcn8s", "unet", "unet-valid", "segnet-basic"])
def test_saving_and_loading_is_exact(variant, networks, tmp_path):
    model = networks(variant)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert list(state) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    for name, value in json.loads((tmp_path / "config.json").read_text()).items():
        if name in inspect.signature(type(model).__init__).parameters:
            assert getattr(model, name) == value
            assert type(getattr(model, name)) is type(value)
    pixels = torch.randn(1, 3, *working_size(variant))
    assert torch.equal(loaded(pixels), model(pixels))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    (tmp_path / "model.safetensors").unlink()


@pytest.mark.parametrize("variant", ["fcn8s", "unet", "segnet-basic"])
def test_float16_files_hold_the_rounded_weights(variant, networks, tmp_path):
    model = networks(variant)
    model.save_pretrained(tmp_path, dtype=torch.float16)
    loaded = load_model(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], rounded)
        assert loaded[name].dtype == tensor.dtype
    count = sum(tensor.numel() for tensor in loaded.values())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.1 * count + 20_000
    (tmp_path / "model.safetensors").unlink()


@pytest.mark.parametrize("network", [FCN, UNet, SegNet])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": "sky"}, "class_names must be a list of str, got 'sky'"),
        ({"class_names": ["sky", 1]}, "class_names must be a list of str"),
        ({"class_names": {"sky": 0}}, "class_names must be a list of str"),
        ({"class_names": []}, "class_names must have 1 to 255 names, got 0"),
        ({"class_names": [str(n) for n in range(256)]}, "1 to 255 names, got 256"),
        ({"class_names": ["sky", "car", "sky"]}, r"got \['sky'\] more than once"),
        ({"in_channels": 0}, "in_channels must be an int of at least 1, got 0"),
        ({"in_channels": "3"}, "got '3'"),
        ({"in_channels": True}, "got True"),
        ({"working_size": 0}, "working_size must be an int of at least 1, got 0"),
        ({"working_size": 480.0}, "got 480.0"),
        ({"palette": [[0, 0, 0]]}, "for each of 3 classes"),
        ({"palette": []}, "for each of 3 classes"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [0, 0, 256]]}, "ints in 0..255"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [0, 0, 0.5]]}, "ints in 0..255"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [0, 0]]}, "palette must have a colour"),
        ({"palette": 7}, "palette must have a colour"),
        ({"image_mean": [0.5]}, "image_mean must have a number for each of 3 channels"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean must have a number"),
        ({"image_std": ["a", "b", "c"]}, "image_std must have a number"),
        ({"image_std": [1, 0, 1]}, "image_std must have a number"),
    ],
)
def test_wrong_arguments_are_named(network, arguments, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        network(**{"class_names": CLASSES} | arguments)
