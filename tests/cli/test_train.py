"""`segmodels train`."""

import pytest

from segmodels.cli.main import main
from tests.support.datasets import write_camvid


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
    monkeypatch.setattr("segmodels.inference.optimize.bf16_is_fast", lambda: pays)
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
