import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from segmodels import FCN, CheckpointError, SegNet, UNet
from segmodels.models.vgg16 import calibrate, encoder_convolutions, encoder_layers, load_vgg16

CLASSES = ["sky", "road"]
# Configuration D; "M" is max pooling.
PLAN = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


def torchvision_names():
    return [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]


def caffe_names():
    return [
        f"conv{stage}_{n}"
        for stage, depth in enumerate([2, 2, 3, 3, 3], 1)
        for n in range(1, depth + 1)
    ]


@pytest.fixture(scope="module")
def tensors():
    """Random weights with VGG16's shapes, in float16: 13 pairs (weight, bias)."""
    generator = torch.Generator().manual_seed(0)
    pairs, channels_in = [], 3
    for channels in PLAN:
        if isinstance(channels, int):
            weight = torch.randn(channels, channels_in, 3, 3, generator=generator)
            bias = torch.randn(channels, generator=generator)
            deviation = (2 / (channels_in * 9)) ** 0.5
            pairs.append(((weight * deviation).half(), (bias * 0.2).half()))
            channels_in = channels
    return pairs


def write(path, names, pairs):
    weights = {f"{name}.weight": weight for name, (weight, _) in zip(names, pairs, strict=True)}
    biases = {f"{name}.bias": bias for name, (_, bias) in zip(names, pairs, strict=True)}
    save_file(weights | biases, path)
    return path


@pytest.fixture(scope="module")
def oxford(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    yield write(path, caffe_names(), tensors)
    path.unlink()


def plain_vgg16(pairs, x):
    """The 13 convolutions' outputs, before ReLU, of plain VGG16 (even sizes)."""
    outputs, rest = [], iter(pairs)
    for layer in PLAN:
        if layer == "M":
            x = F.max_pool2d(x, 2)
        else:
            weight, bias = next(rest)
            outputs.append(F.conv2d(x, weight.float(), bias.float(), padding=1))
            x = F.relu(outputs[-1])
    return outputs


def outputs_of(model, layers, pixels):
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, __, x: seen.append(x.clone())) for layer in layers
    ]
    with torch.inference_mode():
        model(pixels)
    for hook in hooks:
        hook.remove()
    return seen


def build(name):
    if name == "fcn":
        return FCN(class_names=CLASSES, head_channels=2)
    if name == "segnet":
        return SegNet(class_names=CLASSES)
    return UNet(class_names=CLASSES, encoder="vgg16", batch_norm=name == "unet with batch norm")


@pytest.mark.parametrize("name", ["fcn", "unet"])
def test_the_encoder_computes_vgg16s_features(name, tensors, oxford):
    model = build(name).eval()
    load_vgg16(model, oxford)
    pixels = torch.randn(1, 3, 32, 48)
    found = outputs_of(model, encoder_convolutions(model), pixels)
    for output, expected in zip(found, plain_vgg16(tensors, pixels), strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
    # 255 (rgb - mean), RGB in [0, 1]
    assert model.image_mean == pytest.approx([123.68 / 255, 116.78 / 255, 103.94 / 255], abs=1e-4)
    assert model.image_std == pytest.approx([1 / 255] * 3)
    assert model.config["image_mean"] == model.image_mean


def test_torchvisions_names_bring_torchvisions_normalisation(tensors, tmp_path):
    write(tmp_path / "model.safetensors", torchvision_names(), tensors)
    model = FCN(class_names=CLASSES, head_channels=2, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    load_vgg16(model, tmp_path)
    for layer, (weight, bias) in zip(encoder_convolutions(model), tensors, strict=True):
        assert torch.equal(layer.weight, weight.float())
        assert torch.equal(layer.bias, bias.float())
    assert model.image_mean == [0.485, 0.456, 0.406]
    assert model.image_std == [0.229, 0.224, 0.225]
    (tmp_path / "model.safetensors").unlink()


@pytest.mark.parametrize("in_channels", [1, 2, 5])
@pytest.mark.parametrize("names", [caffe_names, torchvision_names])
def test_equal_channels_give_the_features_of_the_grey_image(in_channels, names, tensors, tmp_path):
    path = write(tmp_path / "vgg16.safetensors", names(), tensors)
    grey = torch.rand(1, 1, 12, 14)
    layers = []
    for channels in (3, in_channels):
        model = UNet(class_names=CLASSES, in_channels=channels, encoder="vgg16", batch_norm=False)
        load_vgg16(model, path)
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (model.image_mean, model.image_std)
        )
        pixels = (grey.expand(1, channels, -1, -1) - mean) / std
        layers.append(outputs_of(model.eval(), encoder_convolutions(model)[:1], pixels)[0])
    path.unlink()
    # The padding is the mean of each of R, G and B, or of them all: the border aside.
    rgb, other = (layer[..., 1:-1, 1:-1] for layer in layers)
    torch.testing.assert_close(other, rgb, rtol=1e-3, atol=1e-3 * rgb.abs().max().item())
    assert len(model.image_mean) == len(model.image_std) == in_channels


def test_a_network_for_other_channels_takes_the_further_layers_as_they_are(tensors, oxford):
    model = SegNet(class_names=CLASSES, in_channels=1)
    load_vgg16(model, oxford)
    for layer, (weight, bias) in list(zip(encoder_convolutions(model), tensors, strict=True))[1:]:
        assert torch.equal(layer.weight, weight.float())
        assert torch.equal(layer.bias, bias.float())
    assert encoder_convolutions(model)[0].weight.shape == (64, 1, 3, 3)


IMAGENET = """
import torch
from huggingface_hub import constants
constants.HF_HUB_CACHE = cache
from safetensors.torch import load_file
from segmodels import UNet
from segmodels.models.vgg16 import encoder_convolutions, load_vgg16
model = UNet(class_names=["sky", "road"], encoder="vgg16")
load_vgg16(model, "imagenet")
expected = load_file(file)
found = encoder_convolutions(model)
same = [
    torch.equal(layer.weight, expected[f"features.{i}.weight"].float())
    and torch.equal(layer.bias, expected[f"features.{i}.bias"].float())
    for layer, i in zip(found, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True)
]
result = [all(same), model.image_mean, model.image_std]
"""


def test_imagenet_stands_for_timms_repository_on_the_hub(hub, client, tensors, tmp_path):
    """A file with the names of `timm/vgg16.tv_in1k`: torchvision's, and timm's classifier."""
    path = write(tmp_path / "model.safetensors", torchvision_names(), tensors)
    head = {"pre_logits.fc1.weight": torch.zeros(2, 2), "head.fc.bias": torch.zeros(2)}
    save_file(load_file(path) | head, path)
    config = b'{"architecture": "vgg16", "num_classes": 1000}'
    content = path.read_bytes()
    hub.publish("timm/vgg16.tv_in1k", {"config.json": config, "model.safetensors": content})
    answer = client.result(IMAGENET, file=str(path), cache=str(tmp_path / "cache"))
    assert answer == [True, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    path.unlink()


@pytest.mark.parametrize("name", ["segnet", "unet with batch norm"])
def test_calibrated_batch_norms_let_vgg16s_features_through(name, tensors, oxford):
    model = build(name)
    load_vgg16(model, oxford)
    first_images = torch.randn(4, 3, 32, 32) * 2 + 1
    calibrate(model, first_images)
    assert model.training
    norms = [layer for layer in encoder_layers(model) if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 13

    model.eval()
    for pixels in (first_images, torch.rand(1, 3, 48, 32)):
        found = outputs_of(model, norms, pixels)
        for output, expected in zip(found, plain_vgg16(tensors, pixels), strict=True):
            # one scalar a layer: the least-squares one
            scalar = (output * expected).sum() / expected.square().sum()
            assert scalar > 0
            torch.testing.assert_close(output, scalar * expected, rtol=1e-3, atol=1e-3)

    convolutions = outputs_of(model, encoder_convolutions(model), first_images)
    for output, norm in zip(convolutions, norms, strict=True):
        assert output.square().mean().item() == pytest.approx(1, rel=1e-3)
        torch.testing.assert_close(norm.running_mean, output.mean((0, 2, 3)), rtol=0, atol=1e-3)
        torch.testing.assert_close(norm.running_var, output.var((0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_calibration_leaves_no_hook_and_the_decoder_alone():
    model = SegNet(class_names=CLASSES)
    before = {name: tensor.clone() for name, tensor in model.decoders.state_dict().items()}
    calibrate(model.eval(), torch.randn(2, 3, 32, 32))
    assert not model.training
    assert not any(layer._forward_pre_hooks for layer in model.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.decoders.state_dict().items())


def test_encoder_layers_are_the_first_convolutions_and_their_batch_norms():
    with torch.device("meta"):
        model = SegNet(class_names=CLASSES)
    first, second, third = (
        model.encoders[0].conv1_1,
        model.encoders[0].conv1_2,
        model.encoders[1].conv2_1,
    )
    chosen = encoder_layers(model, 3)
    assert chosen == [first.conv, second.conv, third.conv, first.bn, second.bn, third.bn]
    assert encoder_layers(model, 0) == []
    assert len(encoder_layers(model)) == 26


def test_networks_without_a_vgg16_encoder_are_refused(oxford):
    with torch.device("meta"):
        others = [
            UNet(class_names=CLASSES),
            SegNet(class_names=CLASSES, variant="basic"),
        ]
    for model in others:
        with pytest.raises(ValueError, match="has no VGG16 encoder: its first convolutions"):
            load_vgg16(model, oxford)


def test_a_missing_layer_is_named_and_nothing_is_loaded(tmp_path, oxford):
    tensors = load_file(oxford)
    del tensors["conv4_2.bias"]
    del tensors["conv5_3.weight"]
    save_file(tensors, tmp_path / "vgg16.safetensors")
    model = FCN(class_names=CLASSES, head_channels=2)
    before = model.conv1_1.weight.clone()
    with pytest.raises(CheckpointError, match=r"vgg16\.safetensors lacks conv4_2, conv5_3;"):
        load_vgg16(model, tmp_path / "vgg16.safetensors")
    assert torch.equal(model.conv1_1.weight, before)
    (tmp_path / "vgg16.safetensors").unlink()


@pytest.mark.parametrize("misshapen", ["conv5_3.weight", "conv5_3.bias"])
def test_a_layer_of_another_shape_is_named_and_nothing_is_loaded(tmp_path, oxford, misshapen):
    tensors = load_file(oxford)
    tensors[misshapen] = tensors[misshapen][:1].clone()
    save_file(tensors, tmp_path / "vgg16.safetensors")
    model = FCN(class_names=CLASSES, head_channels=2)
    before = model.conv1_1.weight.clone()
    with pytest.raises(CheckpointError, match="conv5_3 have shapes "):
        load_vgg16(model, tmp_path / "vgg16.safetensors")
    assert torch.equal(model.conv1_1.weight, before)
    (tmp_path / "vgg16.safetensors").unlink()


def test_a_broken_or_missing_file_is_named(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with torch.device("meta"):
        model = FCN(class_names=CLASSES)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors is not a complete safetensors"):
        load_vgg16(model, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_vgg16(model, tmp_path)
