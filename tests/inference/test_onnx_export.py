"""ONNX files, run by onnxruntime."""

import contextlib
import io
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from segmodels import FCN, SegNet, UNet, load_model
from segmodels.cli.main import main
from segmodels.inference import onnx_export
from segmodels.inference.onnx_export import ExportError, export_onnx, verify

CLASSES = ["sky", "road", "car"]
# A size at which each pooling rounds up, one that is even throughout, the least, and slivers.
SIZES = [(2, 35, 29), (1, 64, 32), (1, 1, 1), (1, 2, 3), (3, 17, 70)]
NETWORKS = {
    "fcn": lambda: FCN(class_names=CLASSES, head_channels=8),
    "unet": lambda: UNet(class_names=CLASSES, base_channels=1, in_channels=2, working_size=64),
    "segnet": lambda: SegNet(class_names=CLASSES, variant="basic", dropout=0.5),
}


def made(name):
    """The network with random weights, FCN's score layers included, and batch-norm statistics."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for layer, module in model.named_modules():
        if layer.startswith("score_"):
            torch.nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        model.train()(torch.randn(4, model.in_channels, 32, 32))
    return model


@pytest.fixture(scope="module", params=NETWORKS)
def command(request, tmp_path_factory):
    """The network, the file that `segmodels export` makes of it, and what that prints."""
    place = tmp_path_factory.mktemp("onnx")
    made(request.param).save_pretrained(place / "model")
    out, printed = place / "new" / f"{request.param}.onnx", io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert main(["export", "--model", str(place / "model"), "--out", str(out)]) == 0
    return load_model(place / "model"), out, printed.getvalue()


@pytest.fixture
def exported(command):
    return command[:2]


def test_the_file_is_whole_valid_and_said_to_be_exact(command):
    _, path, printed = command
    assert re.fullmatch(rf"{path}: logits within \de-\d\d of PyTorch's, .*\n", printed)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_names_and_free_axes_are_as_promised(exported):
    model, path = exported
    session = onnxruntime.InferenceSession(path)
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type) == ("pixel_values", "tensor(float)")
    assert pixels.shape == ["batch", model.in_channels, "height", "width"]
    assert logits.name == "logits"
    assert logits.shape[:2] == ["batch", 3]


def test_logits_are_pytorchs_at_any_size(exported):
    model, path = exported
    session = onnxruntime.InferenceSession(path)
    for number, height, width in SIZES:
        # SegNet's pooling indices may flip where two values are equal up to rounding: of a few
        # pictures one has no such window, and there every logit agrees.
        differences = []
        for seed in range(3):
            torch.manual_seed(seed)
            pixels = torch.randn(number, model.in_channels, height, width)
            (logits,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
            with torch.no_grad():
                expected = model(pixels).numpy()
            assert logits.shape == expected.shape
            assert np.isfinite(logits).all()
            agreeing = (logits.argmax(1) == expected.argmax(1)).mean()
            assert agreeing > 0.95
            differences.append(np.abs(logits - expected).max())
            if differences[-1] <= 1e-4:
                break
        assert min(differences) <= 1e-4, (height, width)


def test_the_metadata_tells_how_to_prepare_and_to_read(exported):
    model, path = exported
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert metadata["architecture"] == type(model).__name__
    normalisation, sizes = ("image_mean", "image_std"), ("working_size", "minimum_size")
    for name in ("class_names", "palette", *normalisation, *sizes):
        assert json.loads(metadata[name]) == getattr(model, name)


def test_a_file_with_other_weights_does_not_pass(exported):
    model, path = exported
    torch.manual_seed(1)
    with torch.no_grad():
        last = list(model.parameters())[-1]
        last.add_(1e-3)
    try:
        with pytest.raises(ExportError, match=r"logits differ from PyTorch's by 0\.00\d+ on"):
            verify(path, model)
    finally:
        with torch.no_grad():
            last.sub_(1e-3)


class Program:
    """Takes the place of what the exporter returns, and of its seconds."""

    model = SimpleNamespace(metadata_props={})

    def save(self, path):
        path.write_bytes(b"an export")


def test_a_file_that_does_not_pass_is_not_written(tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the former one")

    def differing(path, model):
        assert path.read_bytes() == b"an export"
        raise ExportError("logits differ")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    monkeypatch.setattr(onnx_export, "verify", differing)
    with pytest.raises(ExportError, match="logits differ"):
        export_onnx(made("fcn"), out)
    assert out.read_bytes() == b"the former one"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_exporting_leaves_the_network_as_it_was(tmp_path, monkeypatch):
    model = made("fcn").double()
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    monkeypatch.setattr(onnx_export, "verify", lambda *_: 0.0)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert model.score_fr.weight.dtype == torch.float64


def test_another_ending_is_refused(tmp_path, capsys):
    assert main(["export", "--model", "x", "--out", str(tmp_path / "model.pt")]) == 1
    assert "must end in .onnx" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_named_with_what_to_do(tmp_path, monkeypatch, capsys, library):
    folder = tmp_path / "model"
    made("fcn").save_pretrained(folder)
    monkeypatch.setitem(sys.modules, library, None)
    command = ["export", "--model", str(folder), "--out", str(tmp_path / "model.onnx")]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert f'needs {library}: pip install "segmodels[export]"' in printed
