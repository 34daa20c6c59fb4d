"""Where and in which precision networks run, and what is computed before."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segmodels import FCN, Segmenter, SegNet, UNet
from segmodels.inference import optimize as module
from segmodels.utils.cpu import Processor
from tests.support.networks import network, picture

ROOT = Path(__file__).parents[2]


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert module.pick_device("auto") == torch.device(expected)
    assert module.pick_device("cpu") == torch.device("cpu")


def test_precision_is_what_was_asked_for_and_auto_is_what_the_device_is_fast_in(monkeypatch):
    cpu = torch.device("cpu")
    assert module.pick_precision("fp16", cpu) is torch.float16
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, "bf16_is_fast", lambda fast=fast: fast)
        assert module.pick_precision("auto", cpu) is expected
        segmenter = Segmenter(network(), "cpu")
        assert segmenter.dtype is expected
        assert segmenter.precision == ("bf16" if fast else "fp32")
    with pytest.raises(ValueError, match='"fp32", "bf16" or "fp16", got \'int8\''):
        Segmenter(network(), "cpu", "int8")


def test_auto_needs_onednn_for_bf16(monkeypatch):
    fast = Processor("A CPU", "AuthenticAMD", amx_bf16=False, avx512_bf16=True)
    monkeypatch.setattr(module, "processor", lambda: fast)
    for there in (True, False):
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda there=there: there)
        assert module.bf16_is_fast() is there


# Prints the dtype that "auto" takes and a digest of a class map, in a process of its own. Programs
# that it is given run meanwhile.
ANSWER = """
import atexit, hashlib, subprocess, sys
from segmodels import Segmenter, SegNet, UNet
from tests.support.networks import network, picture
for program in sys.argv[1:]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    atexit.register(process.kill)
    assert process.stdout.readline() == b"busy\\n"
for kind in (UNet, SegNet):
    segmenter = Segmenter(network(kind), "cpu")
    class_map = segmenter(picture(48, 64)).class_map
    print(segmenter.precision, hashlib.sha256(class_map.tobytes()).hexdigest())
"""
BUSY = """
print("busy", flush=True)
while True:
    pass
"""


def test_every_process_gives_the_same_answer_beside_busy_ones():
    options = {"env": {**os.environ, "OMP_NUM_THREADS": "2"}, "text": True, "cwd": ROOT}
    alone, beside = (
        subprocess.check_output([sys.executable, "-c", ANSWER, *busy], **options)
        for busy in ((), (BUSY, BUSY))
    )
    assert beside == alone
    assert len(alone.splitlines()) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [FCN, UNet, SegNet])
def test_the_answer_is_that_of_any_number_of_threads(kind, precision):
    before, found = torch.get_num_threads(), []
    segmenter = Segmenter(network(kind), "cpu", precision)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(segmenter.probabilities(picture(48, 64)))
    finally:
        torch.set_num_threads(before)
    # 1x1 convolutions in float32 add in another order with another number of threads.
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5 if precision == "fp32" else 0.02)
        assert (other.argmax(0) == found[0].argmax(0)).mean() > 0.995


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
