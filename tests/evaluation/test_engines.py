"""Other engines: what they compute in, what they need, and that they compute the network."""

import importlib.util
import shutil
import sys

import pytest
import torch

from segmodels import UNet
from segmodels.evaluation import engines
from segmodels.evaluation.engines import ENGINES
from segmodels.inference.onnx_export import export_onnx


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UNet(class_names=["a", "b"], base_channels=2).eval()


@pytest.fixture(scope="module")
def onnx(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(model, path)
    return path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_gives_the_networks_logits(name, model, onnx):
    if not ENGINES[name].is_installed():
        pytest.skip(f"{name} is not installed")
    pixels = torch.randn(2, 3, 21, 34)
    with torch.inference_mode():
        expected = model(pixels)
    found = ENGINES[name].start(model, torch.float32, onnx)(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_torch_compile_runs_a_copy_in_the_dtype_that_is_asked_for(model, onnx, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    pixels = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        found = ENGINES["torch.compile"].start(model, torch.bfloat16, onnx)(pixels)
        expected = model(pixels)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1
    assert next(model.parameters()).dtype == torch.float32


def test_an_engine_takes_the_precision_that_is_asked_for_if_it_has_it():
    names = ["onnxruntime fp32", "openvino bf16", "torch.compile bf16"]
    assert [engines.label(name, torch.bfloat16) for name in ENGINES] == names
    assert engines.label("openvino", torch.float16) == "openvino fp32"


def test_an_engine_is_installed_if_all_that_it_needs_is(monkeypatch):
    there = {"onnx", "onnxruntime", "onnxscript"}
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in there else None)
    assert ENGINES["onnxruntime"].is_installed()
    assert not ENGINES["openvino"].is_installed()
    there.add("openvino")
    assert ENGINES["openvino"].is_installed()
    for compiler in ("/usr/bin/g++", None):
        monkeypatch.setattr(shutil, "which", lambda _, found=compiler: found)
        assert ENGINES["torch.compile"].is_installed() is bool(compiler)


def test_nothing_is_imported_to_find_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    assert ENGINES["openvino"].is_installed() is bool(importlib.util.find_spec("openvino"))
    assert "openvino" not in sys.modules
