"""Convolutions with fewer multiplications: the same sums."""

import copy
import math

import pytest
import torch
from torch import nn

from segmodels import SegNet, UNet
from segmodels.inference.optimize import prepared, use_winograd
from segmodels.models.layers import winograd

CPU = torch.device("cpu")


def layer(channels=(5, 7), kernel=3, **options):
    return nn.Conv2d(*channels, kernel, **{"padding": 1} | options)


@pytest.mark.parametrize("padding", [0, 1, "valid", "same"])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 18), (33, 6), (64, 130)])
def test_the_sums_are_those_of_the_convolution(padding, size):
    torch.manual_seed(0)
    direct = layer(padding=padding)
    x = torch.randn(2, 5, *size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = direct.double()(x.double())
        fast = winograd.Winograd(direct.float()).to(memory_format=torch.channels_last)
        found = fast(x)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=0)


def test_parts_of_many_tiles_join_without_a_seam(monkeypatch):
    torch.manual_seed(0)
    direct, x = layer(bias=False), torch.randn(1, 5, 41, 37)
    with torch.inference_mode():
        whole = winograd.Winograd(direct)(x)
        for tiles in (1, 10, 25):
            monkeypatch.setattr(winograd, "MAX_TILES", tiles)
            parts = winograd.Winograd(direct)(x)
            torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole, direct(x), atol=2e-5, rtol=0)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tiles", [1, 3, 128])
def test_the_gradients_are_those_of_the_convolution(padding, bias, tiles, monkeypatch):
    monkeypatch.setattr(winograd, "MAX_TILES", tiles)
    torch.manual_seed(0)
    direct = layer(padding=padding, bias=bias).double()
    fast = winograd.WinogradConv2d(copy.deepcopy(direct))
    x = torch.randn(3, 5, 9, 14, dtype=torch.float64)
    found = []
    for convolution in (direct, fast):
        pixels = x.clone().requires_grad_()
        (convolution(pixels) ** 2).sum().backward()
        found.append([pixels.grad, *(p.grad for p in convolution.parameters())])
    for ours, expected in zip(*found[::-1], strict=True):
        torch.testing.assert_close(ours, expected)


def test_what_needs_no_gradient_gets_none():
    fast = winograd.WinogradConv2d(layer())
    fast.weight.requires_grad_(False)
    fast(torch.randn(1, 5, 8, 8)).sum().backward()
    assert fast.weight.grad is None
    torch.testing.assert_close(fast.bias.grad, torch.full((7,), 64.0))


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])  # whole tiles, and parts of them
def test_in_training_what_it_returns_may_be_changed_in_place(size):
    direct, x = layer(), torch.randn(1, 5, *size)
    expected = torch.autograd.grad(direct(x).relu().sum(), direct.weight)
    found = torch.autograd.grad(winograd.WinogradConv2d(direct)(x).relu_().sum(), direct.weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_in_training_the_parameters_stay_where_and_what_they_were():
    model = UNet(class_names=["a", "b"], base_channels=32)
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    use_winograd(model, winograd.WinogradConv2d)
    assert any(isinstance(module, winograd.WinogradConv2d) for module in model.modules())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before


def test_it_is_for_wide_plain_3x3_convolutions():
    wide = (winograd.MIN_CHANNELS, winograd.MIN_CHANNELS)
    least = math.prod(wide)
    assert winograd.is_faster(layer(wide), least)
    assert winograd.is_faster(layer(wide, padding="same"), least)
    for other in (
        layer((winograd.MIN_CHANNELS - 1, winograd.MIN_CHANNELS)),
        layer((winograd.MIN_CHANNELS - 1, 2 * winograd.MIN_CHANNELS)),
        layer(wide, kernel=1),
        layer(wide, stride=2),
        layer(wide, padding=2),
        layer(wide, dilation=2),
        layer(wide, groups=2),
        layer(wide, padding_mode="reflect"),
        nn.ConvTranspose2d(*wide, 3, padding=1),
        nn.Identity(),
    ):
        assert not winograd.is_faster(other, least)
    assert not winograd.is_faster(layer(wide), least + 1)


@pytest.mark.parametrize("kind", ["padded unet", "valid unet", "segnet"])
def test_a_network_in_float32_on_the_cpu_has_it_and_answers_the_same(kind):
    torch.manual_seed(0)
    names = ["a", "b", "c"]
    if kind == "segnet":
        model, size = SegNet(class_names=names), (64, 96)
    else:
        padding = "same" if kind == "padded unet" else "valid"
        model, size = UNet(class_names=names, base_channels=32, padding=padding), (188, 204)
    model.eval()
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected = model(x)
        network = prepared(model, CPU, torch.float32)
        found = network(x.to(memory_format=torch.channels_last))
    spread = float(expected.max() - expected.min())
    torch.testing.assert_close(found, expected, atol=1e-4 * spread, rtol=0)
    assert any(isinstance(module, winograd.Winograd) for module in network.modules())
    half = prepared(model, CPU, torch.bfloat16)
    assert not any(isinstance(module, winograd.Winograd) for module in half.modules())
