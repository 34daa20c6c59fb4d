import pytest
import torch
from torch.nn import functional as F

from segmodels import UNet
from segmodels.models.unet import valid_output_size

CLASSES = ["cell", "background"]
PAPER = {"padding": "valid", "batch_norm": False}


def random_unet(**arguments):
    """In float64 and evaluation mode, every parameter and statistic random."""
    torch.manual_seed(0)
    model = UNet(class_names=CLASSES, base_channels=2, **arguments).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("bias") or "running_mean" in name:
            tensor.normal_(std=0.1)
        elif "running_var" in name or (tensor.ndim == 1 and tensor.is_floating_point()):
            tensor.uniform_(0.5, 1.5)
    return model


def figure_1(p, x, padding, batch_norm):
    """The network of Figure 1 from its weights, arrow by arrow, with other means: pooling by
    comparing four strided views, up-convolution by interleaving, explicit crops."""

    def convolve(x, name):
        for index in (0, 3) if batch_norm else (0, 2):
            key = f"{name}.{index}"
            pad = (1, 1, 1, 1) if padding == "same" else (0, 0, 0, 0)
            x = F.conv2d(F.pad(x, pad), p[f"{key}.weight"], p[f"{key}.bias"])
            if batch_norm:
                bn = f"{name}.{index + 1}"
                deviation = (p[f"{bn}.running_var"] + 1e-5).sqrt()[:, None, None]
                x = (x - p[f"{bn}.running_mean"][:, None, None]) / deviation
                x = x * p[f"{bn}.weight"][:, None, None] + p[f"{bn}.bias"][:, None, None]
            x = x.clamp(min=0)
        return x

    def pool(x):
        height, width = x.shape[-2:]
        if padding == "same":  # a half-filled window counts
            x = F.pad(x, (0, width % 2, 0, height % 2), value=float("-inf"))
        else:  # it does not
            x = x[..., : height // 2 * 2, : width // 2 * 2]
        views = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return torch.stack(views).amax(0)

    def up(x, name):
        # output (2 y + i, 2 x + j) is the input (y, x) through tap (i, j)
        taps = torch.einsum("nchw,cdij->ndhiwj", x, p[f"{name}.weight"])
        n, d, h, _, w, _ = taps.shape
        return taps.reshape(n, d, 2 * h, 2 * w) + p[f"{name}.bias"][:, None, None]

    def join(skip, x):
        if padding == "same":
            x = x[..., : skip.shape[-2], : skip.shape[-1]]
        else:
            top, left = ((skip.shape[d] - x.shape[d]) // 2 for d in (-2, -1))
            skip = skip[..., top:, left:][..., : x.shape[-2], : x.shape[-1]]
        return torch.cat([skip, x], 1)

    skips = []
    for level in (1, 2, 3, 4):
        x = convolve(x, f"encoder{level}")
        skips.append(x)
        x = pool(x)
    x = convolve(x, "encoder5")
    for level in (4, 3, 2, 1):
        x = convolve(join(skips.pop(), up(x, f"upconv{level}")), f"decoder{level}")
    return (
        torch.einsum("nchw,dc->ndhw", x, p["heatmaps.weight"][:, :, 0, 0])
        + (p["heatmaps.bias"][:, None, None])
    )


@pytest.mark.parametrize(
    ("padding", "batch_norm", "sizes"),
    [
        ("valid", False, [(188, 204), (203, 189)]),
        ("valid", True, [(191, 188)]),
        ("same", True, [(1, 1), (16, 32), (33, 47), (5, 70)]),
        ("same", False, [(31, 18)]),
    ],
)
@torch.inference_mode()
def test_the_network_is_figure_1(padding, batch_norm, sizes):
    model = random_unet(padding=padding, batch_norm=batch_norm)
    for height, width in sizes:
        pixels = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = figure_1(model.state_dict(), pixels, padding, batch_norm)
        assert expected.std() > 1e-3
        torch.testing.assert_close(model(pixels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("in_channels", "parameters"), [(1, 31_030_658), (3, 31_031_810)])
def test_parameters_of_the_papers_network(in_channels, parameters):
    # two more input channels: 2 * 64 * 9 = 1,152
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, in_channels=in_channels, **PAPER)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_572_pixels_give_388():
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, in_channels=1, **PAPER)
        assert model(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert valid_output_size(572, (2, 2, 2, 2, 2)) == 388


@pytest.mark.parametrize("encoder", ["plain", "vgg16"])
def test_the_valid_size_is_that_of_the_map(encoder):
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, encoder=encoder, **PAPER)
        for height, width in [(300, 313), (321, 345), (400, 402)]:
            expected = [valid_output_size(size, model.depths) for size in (height, width)]
            assert list(model(torch.empty(1, 3, height, width)).shape[2:]) == expected


# Up the decoder s -> 2 s - 4 four times is 16 s - 60 >= 1, so s >= 4 at the bottom. Down again,
# plain: 4 + 4 = 8, 16 + 4 = 20, 40 + 4 = 44, 88 + 4 = 92, 184 + 4 = 188.
# vgg16: 4 + 6 = 10, 20 + 6 = 26, 52 + 6 = 58, 116 + 4 = 120, 240 + 4 = 244.
@pytest.mark.parametrize(("encoder", "smallest"), [("plain", 188), ("vgg16", 244)])
def test_the_smallest_valid_image_and_its_message(encoder, smallest):
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, encoder=encoder, **PAPER)
        assert model(torch.empty(1, 3, smallest, smallest)).shape == (1, 2, 4, 4)
        for height, width in [(smallest - 1, 300), (300, smallest - 1), (1, 1)]:
            message = f"{height} x {width} pixels: it needs at least {smallest} x {smallest}"
            with pytest.raises(ValueError, match=message):
                model(torch.empty(1, 3, height, width))


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@torch.inference_mode()
def test_the_skip_of_each_level_matters(level):
    model = random_unet()
    pixels = torch.randn(1, 3, 48, 48, dtype=torch.float64)
    before = model(pixels)
    first = model.get_submodule(f"decoder{level}")[0]
    first.weight[:, : first.in_channels // 2] = 0
    assert (model(pixels) - before).abs().max() > 1e-3


def test_the_vgg16_encoder_has_vgg16s_convolutions():
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, encoder="vgg16")
        pixels = torch.empty(1, 3, 45, 64)
        widths = []
        for level in range(1, 6):
            block = model.get_submodule(f"encoder{level}")
            widths.append([m.out_channels for m in block if isinstance(m, torch.nn.Conv2d)])
        assert model(pixels).shape == (1, 2, 45, 64)
    assert widths == [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]


def test_channels_double_with_each_level():
    with torch.device("meta"):
        model = UNet(class_names=CLASSES, base_channels=3)
    widths = [model.get_submodule(f"encoder{level}")[0].out_channels for level in range(1, 6)]
    assert widths == [3, 6, 12, 24, 48]


def test_weights_begin_as_he_et_al():
    torch.manual_seed(0)
    model = UNet(class_names=CLASSES, base_channels=16)
    # fan in of decoder4's first convolution: 256 channels * 9
    assert model.decoder4[0].weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert not model.decoder4[0].bias.any()
    assert not model.upconv4.bias.any()


def test_dropout_ends_the_contracting_path():
    model = random_unet(dropout=0.3)
    seen = []
    model.drop.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    model(torch.randn(1, 3, 32, 48, dtype=torch.float64))
    # 2 * 2^3 and 2 * 2^4 channels, 1/8 and 1/16
    assert seen == [(1, 16, 4, 6), (1, 32, 2, 3)]
    assert model.drop.p == 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "resnet"}, "encoder must be one of 'plain', 'vgg16'; got 'resnet'"),
        ({"padding": "full"}, "padding must be one of 'same', 'valid'; got 'full'"),
        ({"padding": 1}, "padding must be one of 'same', 'valid'; got 1"),
        ({"base_channels": 0}, "base_channels must be an int of at least 1, got 0"),
        ({"base_channels": 1.5}, "got 1.5"),
        ({"batch_norm": None}, "batch_norm must be True or False, got None"),
        ({"dropout": -0.1}, "dropout must be a number of at least 0 and less than 1, got -0.1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(class_names=CLASSES, **arguments)
