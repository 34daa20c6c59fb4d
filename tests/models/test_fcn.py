import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segmodels import FCN
from segmodels.models.fcn import bilinear_kernel, deconvolution

CLASSES = ["sky", "road", "car"]


def narrow_fcn(divisor=16, **arguments):
    """An FCN in float64 with `divisor` times fewer channels, everything but the bilinear kernels
    random; each layer keeps its kernel and padding."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = FCN(class_names=CLASSES, head_channels=128, **arguments)
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Conv2d):
            channels_in, channels = layer.in_channels, layer.out_channels
            channels_in = channels_in if name == "conv1_1" else max(1, channels_in // divisor)
            channels = channels if name.startswith("score") else max(1, channels // divisor)
            layer = nn.Conv2d(channels_in, channels, layer.kernel_size, padding=layer.padding)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.normal_(layer.bias, std=0.1)
            setattr(model, name, layer)
        elif isinstance(layer, nn.ConvTranspose2d):
            layer = deconvolution(len(CLASSES), stride=layer.stride[0])
            layer.weight.data = bilinear_kernel(len(CLASSES), layer.kernel_size[0])
            setattr(model, name, layer)
    return model.double().eval()


def voc_fcn(p, data, stride, at_once):
    """voc-fcn32s, -16s and -8s, line by line from the authors' net.py, with their crops."""

    def conv(name, x, pad):
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=pad)

    def pool_of(x, *names, first_pad=1):
        for number, name in enumerate(names):
            x = F.relu(conv(name, x, first_pad if number == 0 else 1))
        return F.max_pool2d(x, 2, 2, ceil_mode=True)

    def crop(x, like, offset):
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    pool1 = pool_of(data, "conv1_1", "conv1_2", first_pad=100)
    pool2 = pool_of(pool1, "conv2_1", "conv2_2")
    pool3 = pool_of(pool2, "conv3_1", "conv3_2", "conv3_3")
    pool4 = pool_of(pool3, "conv4_1", "conv4_2", "conv4_3")
    pool5 = pool_of(pool4, "conv5_1", "conv5_2", "conv5_3")
    fc6 = F.relu(conv("fc6", pool5, 0))
    fc7 = F.relu(conv("fc7", fc6, 0))
    score_fr = conv("score_fr", fc7, 0)
    if stride == 32:
        return crop(F.conv_transpose2d(score_fr, p["upscore.weight"], stride=32), data, 19)
    upscore2 = F.conv_transpose2d(score_fr, p["upscore2.weight"], stride=2)
    score_pool4 = conv("score_pool4", pool4 * 0.01 if at_once else pool4, 0)
    fuse_pool4 = upscore2 + crop(score_pool4, upscore2, 5)
    if stride == 16:
        return crop(F.conv_transpose2d(fuse_pool4, p["upscore16.weight"], stride=16), data, 27)
    upscore_pool4 = F.conv_transpose2d(fuse_pool4, p["upscore_pool4.weight"], stride=2)
    score_pool3 = conv("score_pool3", pool3 * 0.0001 if at_once else pool3, 0)
    fuse_pool3 = upscore_pool4 + crop(score_pool3, upscore_pool4, 9)
    return crop(F.conv_transpose2d(fuse_pool3, p["upscore8.weight"], stride=8), data, 31)


@pytest.mark.parametrize("reference_padding", [True, False])
@pytest.mark.parametrize("coarser", [32, 16])
@torch.inference_mode()
def test_a_coarser_stride_is_the_network_without_its_finer_skips(coarser, reference_padding):
    fine = narrow_fcn(stride=8, reference_padding=reference_padding)
    coarse = narrow_fcn(stride=coarser, reference_padding=reference_padding)
    state = {name: fine.state_dict().get(name, kept) for name, kept in coarse.state_dict().items()}
    coarse.load_state_dict(state)  # its last deconvolution is bilinear, as narrow_fcn leaves it
    pixels = torch.randn(2, 3, 45, 70, dtype=torch.float64)
    expected = coarse(pixels)
    assert expected.std() > 1e-3
    assert torch.allclose(fine.at_stride(pixels, coarser), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(fine.at_stride(pixels, 8), fine(pixels))


@pytest.mark.parametrize("stride", [8, 12])
def test_a_stride_that_the_network_does_not_have_is_refused(stride):
    with pytest.raises(ValueError, match=rf"one of \(32, 16\), got {stride}"):
        narrow_fcn(stride=16).at_stride(torch.zeros(1, 3, 8, 8, dtype=torch.float64), stride)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("stride", [32, 16, 8])
@torch.inference_mode()
def test_reference_padding_is_the_authors_network(stride, at_once):
    model = narrow_fcn(stride=stride, at_once=at_once, reference_padding=True)
    for layer in model.modules():  # learnt deconvolutions, not symmetric any more
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight += 0.1 * torch.randn_like(layer.weight)
    for height, width in [(1, 1), (33, 47), (70, 31)]:
        pixels = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = voc_fcn(model.state_dict(), pixels, stride, at_once)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(model(pixels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reference_padding", [True, False])
@pytest.mark.parametrize(
    ("stride", "layer", "scale"),
    [
        (32, "score_fr", 1),
        (16, "score_fr", 1),
        (8, "score_fr", 1),
        (16, "score_pool4", 0.01),
        (8, "score_pool4", 0.01),
        (8, "score_pool3", 0.0001),
    ],
)
@torch.inference_mode()
def test_scores_lie_over_the_pixels_that_they_come_from(reference_padding, stride, layer, scale):
    """Convolutions that pass their centre on let a ramp through. Max pooling down to stride s takes
    the last of s pixels in place of their middle: (s - 1)/2 more than the ramp, everywhere."""
    model = narrow_fcn(divisor=512, stride=stride, reference_padding=reference_padding)
    for name, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.zero_()
            conv.bias.zero_()
            centre = conv.kernel_size[0] // 2
            if name == layer:
                conv.weight[:, 0, 0, 0] = torch.tensor([1.0, 2.0, -3.0]) / scale
            elif not name.startswith("score"):
                conv.weight[:, 0, centre, centre] = 1
    y, x = torch.meshgrid(torch.arange(160.0), torch.arange(170.0), indexing="ij")
    ramp = (3 * x + y).double()
    logits = model(ramp.expand(1, 3, -1, -1))

    # (3 + 1) (s - 1)/2 for the ramp 3 x + y
    source = {"score_fr": 32, "score_pool4": 16, "score_pool3": 8}[layer]
    expected = ramp + 4 * (source - 1) / 2
    # Bilinear interpolation is exact between the outermost exact scores. conv1_1 padded by 100: the
    # first and last whole blocks of 32 are pixels 29 to 60 and 125 to 156, centres 44.5 and 140.5;
    # upsampled by 2, the scores between are at 52.5 to 132.5, and again, at 56.5 to 128.5. Padded
    # by 1: 15.5 and 143.5, 23.5 and 135.5, 27.5 and 131.5.
    inner = (..., slice(57, 129), slice(57, 129))
    for number, factor in enumerate([1, 2, -3]):
        torch.testing.assert_close(
            logits[0, number][inner], factor * expected[inner], rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_deconvolutions_begin_as_bilinear_interpolation_centred(stride):
    scores = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    kernel = bilinear_kernel(2, 2 * stride).double()
    # Output o of the deconvolution lies over o - s/2 of the interpolated map; next to the border
    # interpolate repeats the outermost score, the deconvolution fades to zero.
    upscored = F.conv_transpose2d(scores, kernel, stride=stride)
    half = stride // 2
    upscored = upscored[..., half : half + 5 * stride, half : half + 6 * stride]
    expected = F.interpolate(scores, scale_factor=stride, mode="bilinear", align_corners=False)
    inner = (..., slice(half, -half), slice(half, -half))
    torch.testing.assert_close(upscored[inner], expected[inner])


def test_the_bilinear_kernel_of_stride_2_by_hand():
    # 1 - |i - 3/2| / 2 for i = 0 ... 3: 1/4, 3/4, 3/4, 1/4; channels do not mix
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = bilinear_kernel(2, 4)
    torch.testing.assert_close(kernel[1, 1], ramp[:, None] * ramp)
    assert kernel[0, 1].abs().sum() == kernel[1, 0].abs().sum() == 0


def test_a_new_network_scores_zero_and_interpolates():
    model = FCN(class_names=CLASSES, head_channels=2)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        assert not model.get_submodule(name).weight.any()
        assert not model.get_submodule(name).bias.any()
    torch.testing.assert_close(model.upscore8.weight.data, bilinear_kernel(3, 16))
    # He et al.: deviation sqrt(2 / fan in) = sqrt(2 / (512 * 9)) = 0.0208
    assert model.conv5_1.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("reference_padding", [True, False])
@pytest.mark.parametrize("stride", [32, 16, 8])
@torch.inference_mode()
def test_logits_have_the_images_size(stride, reference_padding):
    model = narrow_fcn(divisor=512, stride=stride, reference_padding=reference_padding).float()
    for height in (1, 2, 3, 5, 16, 31, 32, 33, 63, 65, 100):
        for width in (1, 34, 97):
            assert model(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_both_paddings_have_the_same_parameters(stride):
    with torch.device("meta"):
        states = [
            FCN(class_names=CLASSES, stride=stride, reference_padding=padding).state_dict()
            for padding in (True, False)
        ]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    assert shapes[0] == shapes[1]


def test_layers_bear_the_authors_names():
    vgg = [
        f"conv{s}_{n}" for s, depth in enumerate([2, 2, 3, 3, 3], 1) for n in range(1, depth + 1)
    ]
    head = [*vgg, "fc6", "fc7", "score_fr"]
    expected = {
        32: [*head, "upscore"],
        16: [*head, "upscore2", "score_pool4", "upscore16"],
        8: [*head, "upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8"],
    }
    for stride, names in expected.items():
        with torch.device("meta"):
            state = FCN(class_names=CLASSES, stride=stride).state_dict()
        biased = [name for name in names if not name.startswith("upscore")]
        assert set(state) == {f"{n}.weight" for n in names} | {f"{n}.bias" for n in biased}


def test_parameters_of_fcn8s_with_21_classes():
    # VGG16's convolutions 14,714,688; fc6 512 * 49 * 4096 + 4096 = 102,764,544;
    # fc7 4096 * 4096 + 4096 = 16,781,312; score_fr 4097 * 21 = 86,037; score_pool4 513 * 21 =
    # 10,773; score_pool3 257 * 21 = 5,397; deconvolutions 21 * 21 * (16 + 16 + 256) = 127,008
    with torch.device("meta"):
        model = FCN(class_names=[str(index) for index in range(21)])
    assert sum(p.numel() for p in model.parameters()) == 134_489_759


@torch.inference_mode()
def test_each_skip_matters():
    model = narrow_fcn(at_once=False)
    pixels = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    whole = model(pixels)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        weight = model.get_submodule(name).weight
        kept = weight.clone()
        weight.zero_()
        assert (model(pixels) - whole).abs().max() > 1e-3, name
        weight.copy_(kept)


def test_dropout_follows_fc6_and_fc7():
    model = narrow_fcn(dropout=0.25)
    seen = []
    model.drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(torch.randn(1, 3, 40, 70, dtype=torch.float64))
    assert model.drop.p == 0.25
    assert [tuple(x.shape) for x in seen] == [(1, 8, 2, 3)] * 2
    assert all((x >= 0).all() for x in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 4}, "stride must be one of 32, 16, 8; got 4"),
        ({"stride": 8.0}, "got 8.0"),
        ({"stride": "8"}, "got '8'"),
        ({"head_channels": 0}, "head_channels must be an int of at least 1, got 0"),
        ({"head_channels": True}, "got True"),
        ({"dropout": 1.0}, "dropout must be a number of at least 0 and less than 1, got 1.0"),
        ({"dropout": "0.5"}, "got '0.5'"),
        ({"reference_padding": 1}, "reference_padding must be True or False, got 1"),
        ({"at_once": "yes"}, "at_once must be True or False, got 'yes'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FCN(class_names=CLASSES, **arguments)
