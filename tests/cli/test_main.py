"""The command line, as a user types it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from segmodels import Segmenter, UNet, __version__, load_model
from segmodels.cli.main import main
from tests.support.datasets import CLASS_NAMES, write_camvid


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, two of one stem, and of other files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "b.webp"):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / name)
    for name in ("notes.txt", "drawing.pdf"):
        (folder / name).write_text("no picture")
    return folder


def test_it_can_be_called_as_a_module_and_says_its_version():
    command = [sys.executable, "-m", "segmodels", "--version"]
    assert subprocess.check_output(command, text=True).split() == ["segmodels", __version__]


def test_predict_writes_exact_ids_and_overlays(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["predict", str(pictures / "b.webp"), "--model", str(model), "--out", str(out)]) == 0
    )
    expected = Segmenter(load_model(model))(pictures / "b.webp")
    with Image.open(out / "b.png") as ids:
        assert np.array_equal(np.array(ids), expected.class_map)
    with Image.open(out / "b_overlay.png") as overlay:
        assert np.array_equal(np.array(overlay), np.array(expected.overlay(0.5)))
    assert "1 of 1 pictures" in capsys.readouterr().out


def test_predict_opens_folders_and_keeps_equal_stems_apart(model, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("a.png", "a_overlay.png", "a_png.png", "a_png_overlay.png", "b.png", "b_overlay.png")
    }
    with Image.open(out / "a_png.png") as ids:
        expected = Segmenter(load_model(model))(pictures / "a.png").class_map
        assert np.array_equal(np.array(ids), expected)


def test_one_bad_picture_is_reported_and_the_rest_go_on(model, pictures, tmp_path, capsys):
    (pictures / "b.webp").write_bytes(b"cut off")
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 pictures" in printed.out
    assert "b.webp" in printed.err
    assert (out / "a.png").exists()
    assert not (out / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/where/at all"], "neither a folder that exists nor a Hub id"),
        (["--opacity", "2"], "--opacity must be from 0 to 1"),
        (["--working-size", "0"], "--working-size must be at least 1"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments, message, model, pictures, capsys):
    command = ["predict", str(pictures), "--model", str(model), *arguments]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("segmodels: ")
    assert message in printed


def test_an_empty_folder_is_told(model, tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--model", str(model)]) == 1
    assert "holds no picture files" in capsys.readouterr().err


def test_evaluate_prints_a_table_and_writes_json(model, tmp_path, capsys):
    data = write_camvid(tmp_path / "data", test=3)
    figures = tmp_path / "figures.json"
    command = ["evaluate", "--model", str(model), "--data", str(data), "--json", str(figures)]
    assert main(command) == 0
    written = json.loads(figures.read_text())
    printed = capsys.readouterr().out
    assert written["pictures"] == 3
    assert f"{100 * written['mean_iou']:.2f}" in printed
    assert all(name in printed for name in CLASS_NAMES)


def test_evaluate_tells_of_missing_data(model, tmp_path, capsys):
    assert main(["evaluate", "--model", str(model), "--data", str(tmp_path)]) == 1
    assert "has no split 'test'" in capsys.readouterr().err


def test_train_makes_a_network_that_predict_takes(tmp_path, capsys):
    data, out = write_camvid(tmp_path / "data", train=4, val=1, test=1), tmp_path / "net"
    command = ["train", "unet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--epochs", "1", "--batch-size", "2", "--crop", "16", "16", "--base-channels", "2"]
    assert main(command) == 0
    picture = next((data / "test").iterdir())
    assert main(["predict", str(picture), "--model", str(out), "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / picture.name).exists()


@pytest.mark.parametrize(
    ("launched", "pays", "options", "precision"),
    [
        ("fp16", True, [], "fp16"),
        ("no", True, [], "bf16"),
        ("no", False, [], "fp32"),
        ("no", False, ["--precision", "bf16"], "bf16"),
        ("fp16", True, ["--precision", "fp32"], "fp32"),
    ],
)
def test_train_takes_the_precision_of_accelerate_launch_or_the_faster_one(
    launched, pays, options, precision, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr("segmodels.inference.optimize.bf16_pays", lambda: pays)
    monkeypatch.setattr(
        "segmodels.training.runner.train", lambda recipe, **_: seen.append(recipe.precision)
    )
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    command = ["train", "unet", "--data", "d", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*command, *options]) == 0
    assert seen == [precision]


def test_train_tells_of_mistakes(tmp_path, capsys):
    data = write_camvid(tmp_path / "data", train=2, val=1)
    command = ["train", "fcn", "--data", str(data), "--out", str(tmp_path / "net")]
    assert main(command) == 1
    assert "2 training pictures are fewer than a batch of 8" in capsys.readouterr().err
    command += ["--batch-size", "2"]
    assert main([*command, "--vgg16", str(tmp_path / "missing.safetensors")]) == 1
    assert "missing.safetensors" in capsys.readouterr().err
    assert main([*command, "--zoom", "2", "1"]) == 1
    assert "zoom must be (from, to)" in capsys.readouterr().err


def test_a_missing_training_library_is_named_with_what_to_do(model, tmp_path, monkeypatch, capsys):
    def import_scipy(*_):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("segmodels.evaluation.evaluator.evaluate", import_scipy)
    data = write_camvid(tmp_path / "data", test=1)
    assert main(["evaluate", "--model", str(model), "--data", str(data)]) == 1
    printed = capsys.readouterr().err
    assert "needs scipy" in printed
    assert "run.py" in printed


def with_page(monkeypatch, serve):
    """`segmodels demo` calls `serve` in place of the page's own `main`."""
    monkeypatch.setitem(sys.modules, "app", SimpleNamespace(main=serve))
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds to it


def test_demo_listens_where_gradio_does_unless_it_is_told(monkeypatch):
    asked = []
    with_page(monkeypatch, lambda **where: asked.append(where))
    assert main(["demo"]) == 0
    assert main(["demo", "--host", "0.0.0.0", "--port", "7000"]) == 0
    assert asked == [{"host": None, "port": None}, {"host": "0.0.0.0", "port": 7000}]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("Cannot find empty port"), "Cannot find empty port"),
        (OSError(28, "No space left on device", "masks"), "masks: No space left on device"),
    ],
)
def test_an_error_of_the_system_names_a_file_only_if_there_is_one(error, told, monkeypatch, capsys):
    def fail(**_):
        raise error

    with_page(monkeypatch, fail)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == f"segmodels: {told}\n"
