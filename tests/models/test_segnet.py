import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segmodels import SegNet

CLASSES = ["sky", "road", "car", "tree"]


def random_segnet(variant, **arguments):
    """In evaluation mode, every parameter and statistic random."""
    torch.manual_seed(0)
    model = SegNet(class_names=CLASSES, variant=variant, **arguments).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("bias") or "running_mean" in name:
            tensor.normal_(std=0.1)
        elif "running_var" in name or (tensor.ndim == 1 and tensor.is_floating_point()):
            tensor.uniform_(0.5, 1.5)
    return model


def pool_with_places(x):
    """Max pooling 2x2 of (N, C, H, W), half-filled windows included; and, of the image's size,
    where each maximum stood: the first of equal ones."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, width % 2, 0, height % 2), value=float("-inf"))
    n, c, h, w = padded.shape
    windows = padded.reshape(n, c, h // 2, 2, w // 2, 2).movedim(3, 4).flatten(-2)
    maxima, which = windows.max(-1)
    places = F.one_hot(which, 4).reshape(n, c, h // 2, w // 2, 2, 2).movedim(4, 3)
    return maxima, places.reshape(n, c, h, w)[..., :height, :width]


def unpool(x, places):
    spread = x.repeat_interleave(2, -2).repeat_interleave(2, -1)
    return spread[..., : places.shape[-2], : places.shape[-1]] * places


def figure_2(p, x, stages, kernel_size, decoder_relu):
    """SegNet from its weights: `stages` names the convolutions of each encoder and decoder."""

    def convolve(x, name, relu):
        x = F.conv2d(x, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], padding=kernel_size // 2)
        deviation = (p[f"{name}.bn.running_var"] + 1e-5).sqrt()[:, None, None]
        x = (x - p[f"{name}.bn.running_mean"][:, None, None]) / deviation
        x = x * p[f"{name}.bn.weight"][:, None, None] + p[f"{name}.bn.bias"][:, None, None]
        return x.clamp(min=0) if relu else x

    encoders, decoders = stages
    places = []
    for number, names in enumerate(encoders):
        for name in names.split():
            x = convolve(x, f"encoders.{number}.{name}", True)
        x, where = pool_with_places(x)
        places.append(where)
    for number, names in enumerate(decoders):
        x = unpool(x, places.pop())
        for name in names.split():
            x = convolve(x, f"decoders.{number}.{name}", decoder_relu)
    return x


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (50, 37)])
@torch.inference_mode()
def test_the_vgg16_network_is_figure_2(height, width):
    stages = (
        [
            "conv1_1 conv1_2",
            "conv2_1 conv2_2",
            "conv3_1 conv3_2 conv3_3",
            "conv4_1 conv4_2 conv4_3",
            "conv5_1 conv5_2 conv5_3",
        ],
        [
            "conv5_3_d conv5_2_d conv5_1_d",
            "conv4_3_d conv4_2_d conv4_1_d",
            "conv3_3_d conv3_2_d conv3_1_d",
            "conv2_2_d conv2_1_d",
            "conv1_2_d",
        ],
    )
    model = random_segnet("vgg16").double()  # in float32, rounding flips pooling indices
    p = model.state_dict()
    pixels = torch.randn(2, 3, height, width, dtype=torch.float64)
    last = figure_2(p, pixels, stages, 3, decoder_relu=True)
    expected = F.conv2d(last, p["conv1_1_d.weight"], p["conv1_1_d.bias"], padding=1)
    assert expected.std() > 1e-2
    torch.testing.assert_close(model(pixels), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (19, 34)])
@torch.inference_mode()
def test_the_basic_network_has_no_relu_in_its_decoders(height, width):
    stages = (
        ["conv1", "conv2", "conv3", "conv4"],
        ["conv_decode4", "conv_decode3", "conv_decode2", "conv_decode1"],
    )
    model = random_segnet("basic").double()
    p = model.state_dict()
    pixels = torch.randn(2, 3, height, width, dtype=torch.float64)
    last = figure_2(p, pixels, stages, 7, decoder_relu=False)
    assert last.min() < 0
    expected = F.conv2d(last, p["conv_classifier.weight"], p["conv_classifier.bias"])
    torch.testing.assert_close(model(pixels), expected, rtol=1e-10, atol=1e-12)


@torch.inference_mode()
def test_unpooling_puts_each_maximum_back_where_it_stood():
    """The decoder's input against loops in NumPy; encoders and decoders let everything through."""
    model = random_segnet("basic").double()
    model.encoders = nn.ModuleList([nn.Identity()])
    model.decoders = nn.ModuleList([nn.Identity()])
    model.conv_classifier = nn.Identity()
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 7))
    expected = np.zeros_like(x)
    for n, c, i, j in np.ndindex(2, 3, 3, 4):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[n, c, 2 * i + row, 2 * j + column] = window[row, column]
    np.testing.assert_array_equal(model(torch.from_numpy(x)).numpy(), expected)


def test_parameters_of_segnet_with_11_classes():
    # VGG16's 14,714,688; its mirror, conv5_3_d ... conv1_2_d and conv1_1_d of 64 * 9 * 11 + 11:
    # together 29,433,483; batch norms 2 * (4,224 + 3,712) = 15,872
    with torch.device("meta"):
        model = SegNet(class_names=[str(index) for index in range(11)])
    assert sum(p.numel() for p in model.parameters()) == 29_449_355
    layers = [type(layer) for layer in model.modules()]
    assert layers.count(nn.Conv2d) == 26
    assert layers.count(nn.BatchNorm2d) == 25
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(p.numel() for norm in norms for p in norm.parameters()) == 15_872


def test_parameters_of_segnet_basic_with_11_classes():
    # conv1 3 * 64 * 49 + 64 = 9,472; seven of 64 * 64 * 49 + 64 = 200,768; batch norms 8 * 128;
    # classifier 64 * 11 + 11 = 715. The paper: 1.425 M, with weights of its own count.
    with torch.device("meta"):
        model = SegNet(class_names=[str(index) for index in range(11)], variant="basic")
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 9_472 + 7 * 200_768 + 1_024 + 715 == 1_416_587
    assert parameters == pytest.approx(1.425e6, rel=0.01)


def test_odd_sizes_are_halved_upwards():
    with torch.device("meta"):
        model = SegNet(class_names=CLASSES).eval()
        heights = []
        for encoder in model.encoders:
            encoder.register_forward_hook(lambda _, inputs, __: heights.append(inputs[0].shape[2]))
        model.decoders[0].register_forward_pre_hook(
            lambda _, inputs: heights.append(inputs[0].shape[2])
        )
        model.pool.register_forward_hook(lambda _, __, output: pooled.append(output[0].shape[2]))
        pooled = []
        assert model(torch.empty(1, 3, 360, 480)).shape == (1, 4, 360, 480)
    assert heights == [360, 180, 90, 45, 23, 23]
    assert pooled == [180, 90, 45, 23, 12]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # after encoders 3, 4, 5 (pooled) and decoders 5, 4, 3
        (
            "vgg16",
            [(256, 4, 8), (512, 2, 4), (512, 1, 2), (512, 2, 4), (256, 4, 8), (128, 8, 16)],
        ),
        # the deeper half: encoders 3, 4 and decoders 4, 3
        ("basic", [(64, 4, 8), (64, 2, 4), (64, 4, 8), (64, 8, 16)]),
    ],
)
def test_dropout_is_where_bayesian_segnet_has_it(variant, expected):
    with torch.device("meta"):
        model = SegNet(class_names=CLASSES, variant=variant, dropout=0.5)
        seen = []
        model.drop.register_forward_hook(lambda _, __, x: seen.append(tuple(x.shape[1:])))
        model(torch.empty(2, 3, 32, 64))
    assert model.drop.p == 0.5
    assert seen == expected


def test_dropout_makes_samples_differ_in_training_mode_alone():
    model = random_segnet("basic", dropout=0.5)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    pixels = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(model(pixels), model(pixels), rtol=0, atol=0)
    model.drop.train()
    assert (model(pixels) - model(pixels)).abs().max() > 1e-3


def test_weights_begin_as_he_et_al():
    torch.manual_seed(0)
    model = SegNet(class_names=CLASSES, variant="basic")
    conv = model.encoders[1].conv2.conv
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.01)
    assert not conv.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "tiny"}, "variant must be one of 'vgg16', 'basic'; got 'tiny'"),
        ({"variant": None}, "got None"),
        ({"dropout": 1}, "dropout must be a number of at least 0 and less than 1, got 1"),
        ({"dropout": float("nan")}, "got nan"),
        ({"in_channels": 0}, "in_channels must be an int of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegNet(class_names=CLASSES, **arguments)
