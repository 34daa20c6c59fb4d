"""Where and in which precision networks run, and what is computed before."""

import numpy as np
import pytest
import torch
from torch import nn

from segmodels import FCN, Segmenter, SegNet, UNet
from segmodels.inference import optimize as module
from tests.support.networks import network, picture


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert module.pick_device("auto") == torch.device(expected)
    assert module.pick_device("cpu") == torch.device("cpu")


def test_precision_is_what_was_asked_for_and_auto_is_what_the_device_is_fast_in(monkeypatch):
    cpu = torch.device("cpu")
    assert module.pick_precision("fp16", cpu) is torch.float16
    for pays, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, "bf16_pays", lambda pays=pays: pays)
        assert module.pick_precision("auto", cpu) is expected
    with pytest.raises(ValueError, match='"fp32", "bf16" or "fp16", got \'int8\''):
        Segmenter(network(), "cpu", "int8")


@pytest.mark.parametrize(
    ("instructions", "bf16", "fp32", "pays"),
    [(True, 1.0, 2.0, True), (True, 2.0, 1.0, False), (False, 1.0, 2.0, False)],
)
def test_bf16_is_taken_where_it_was_measured_to_be_the_faster(
    monkeypatch, instructions, bf16, fp32, pays
):
    clock = [0.0]

    def convolution(pixels, kernel, padding):
        assert pixels.dtype == kernel.dtype
        clock[0] += bf16 if pixels.dtype is torch.bfloat16 else fp32

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)
    monkeypatch.setattr(module, "conv2d", convolution)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    module.bf16_pays.cache_clear()
    try:
        assert module.bf16_pays() is pays
    finally:
        module.bf16_pays.cache_clear()


# 8 bits of mantissa and 11: a random network, whose classes lie close together, shows the rounding.
@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.03), ("fp16", 0.01)])
@pytest.mark.parametrize("kind", [FCN, UNet, SegNet])
def test_half_precision_agrees_with_full(kind, precision, error):
    model, array = network(kind), picture(48, 64)
    full = Segmenter(model, "cpu", "fp32").probabilities(array)
    half = Segmenter(model, "cpu", precision).probabilities(array)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).mean() < error
    np.testing.assert_allclose(half.sum(0), 1, atol=1e-4)


def test_folded_batch_norms_leave_the_answer_and_the_model_alone():
    model = network(UNet)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    segmenter = Segmenter(model.train(), "cpu", "fp32")
    segmenter(picture(20, 20))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in segmenter.network.modules())
