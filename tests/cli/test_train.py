"""`segmodels train`."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from segmodels.cli.main import main
from segmodels.data.dataset import open_data
from segmodels.training import TrainingConfig
from tests.support.datasets import write_camvid, write_unlisted
from tests.support.tiff import write_multispectral


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
        "segmodels.training.runner.train", lambda config, **_: seen.append(config.precision)
    )
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    command = ["train", "unet", "--data", "d", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*command, *options]) == 0
    assert seen == [precision]


def test_train_reports_errors(tmp_path, capsys):
    data = write_camvid(tmp_path / "data", train=2, val=1)
    command = ["train", "fcn", "--data", str(data), "--out", str(tmp_path / "net")]
    assert main([*command, "--vgg16", str(tmp_path / "missing.safetensors")]) == 1
    assert "missing.safetensors" in capsys.readouterr().err
    assert main([*command, "--zoom", "2", "1"]) == 1
    assert "zoom must be (from, to)" in capsys.readouterr().err
    assert main([*command, "--no-batch-norm"]) == 1
    assert "--batch-norm: not an option of fcn" in capsys.readouterr().err


def test_every_option_of_the_config_is_an_option_with_its_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for option in dataclasses.fields(TrainingConfig):
        if option.name in ("network", "data"):
            continue
        name = "--" + option.name.replace("_", "-")
        (place,) = [i for i, line in enumerate(lines) if line.startswith((f"{name} ", f"{name}, "))]
        text = " ".join(lines[place : place + 2])  # a long option has its help on the next line
        default = text[text.index("(default: ") :]
        if option.default is None:
            assert option.metadata["unset"] in default
        elif isinstance(option.default, int | float) and not isinstance(option.default, bool):
            assert str(option.default) in default


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["unet", "--crop", "64", "96"], {"crop": (64, 96)}),
        (["unet", "--no-horizontal-flip", "--quarter-turns"], {"horizontal_flip": False}),
        (["--preset", "paper-unet", "--momentum", "0.9"], {"momentum": 0.9, "padding": "valid"}),
        (["segnet", "--preset", "road"], {"network": "segnet", "color_strength": 0.6}),
        (["fcn", "--stride", "16", "--steps", "70"], {"stride": 16, "steps": 70}),
    ],
)
def test_options_reach_the_config(arguments, expected, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("segmodels.training.runner.train", lambda config, **_: seen.append(config))
    command = ["train", "--data", "d", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*command, *arguments]) == 0
    assert {name: getattr(seen[0], name) for name in expected} == expected


def test_a_network_or_a_preset_is_needed(tmp_path, capsys):
    assert main(["train", "--data", "d", "--out", str(tmp_path)]) == 1
    assert "specify one of fcn, unet, segnet, or a --preset" in capsys.readouterr().err


def test_batch_norm_of_a_single_value_is_refused_before_a_step(tmp_path, capsys):
    data = write_camvid(tmp_path / "data", train=2, val=1)
    command = ["train", "unet", "--data", str(data), "--out", str(tmp_path / "net")]
    command += ["--batch-size", "1", "--crop", "16", "16", "--base-channels", "2"]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "batch norm cannot train on a batch of 1 at a crop of 16 x 16" in told
    assert "larger --crop or --batch-size" in told


@pytest.mark.parametrize(
    ("options", "count"), [(["--val-fraction", "0.3"], 2), (["--folds", "3", "--fold", "1"], 2)]
)
def test_held_out_images_are_recorded_and_measured_again(options, count, tmp_path, capsys):
    data = write_unlisted(tmp_path / "data", [f"{number}" for number in range(6)])
    out = tmp_path / "net"
    command = ["train", "unet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--steps", "2", "--batch-size", "2", "--crop", "16", "16", "--base-channels", "2"]
    assert main([*command, *options]) == 0
    assert f"validation on {count} of the 6 training images, held out" in capsys.readouterr().err
    record = json.loads((out / "training.json").read_text())
    assert len(record["held_out"]) == count
    table = tmp_path / "images.csv"
    measure = ["evaluate", "--model", str(out), "--data", str(data), "--csv", str(table)]
    for way in ([], options):  # by the record, and by the same options
        assert main([*measure, "--split", "val", *way]) == 0
        with open(table, newline="") as file:
            measured = [row["image"] for row in csv.DictReader(file)]
        assert [f"images/{name}" for name in measured] == record["held_out"]
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    report = tmp_path / "report.json"
    assert main([*measure, "--split", "val", "--json", str(report), "--precision", "auto"]) == 0
    assert json.loads(report.read_text())["mean_iou"] == pytest.approx(
        log[-1]["val_mean_iou"], abs=0.02
    )
    assert main([*measure, "--split", "train"]) == 0
    assert f"{6 - count} of {6 - count} images" in capsys.readouterr().out


def test_another_fold_is_another_training(tmp_path, capsys):
    data = write_unlisted(tmp_path / "data", [f"{number}" for number in range(6)])
    out = tmp_path / "net"
    command = ["train", "unet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--steps", "1", "--batch-size", "2", "--crop", "16", "16", "--base-channels", "2"]
    assert main([*command, "--folds", "3", "--fold", "1"]) == 0
    assert main(command) == 1
    assert "folds 3, now None; fold 1, now None" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "suffix"), [(2, ".npy"), (5, ".tif")])
def test_images_of_other_channels_train_and_are_measured_and_segmented(
    channels, suffix, tmp_path, capsys
):
    data = write_unlisted(tmp_path / "data", [f"{number}" for number in range(4)])
    for file in list((data / "images").iterdir()):
        with Image.open(file) as image:
            pixels = np.array(image)[..., [0, 1, 2, 0, 1][:channels]]
        file.unlink()
        if suffix == ".npy":
            np.save(file.with_suffix(suffix), pixels)
        else:
            write_multispectral(file.with_suffix(suffix), pixels)
    out = tmp_path / "net"
    command = ["train", "unet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--steps", "2", "--batch-size", "2", "--crop", "16", "16", "--base-channels", "2"]
    command += ["--val-fraction", "0.25", "--degrade", "0.5"]
    assert main(command) == 1
    assert f"{channels} channels" in capsys.readouterr().err
    assert main([*command, "--in-channels", str(channels)]) == 0
    config = json.loads((out / "config.json").read_text())
    kept = open_data(data, "train", val_fraction=0.25).with_channels(channels)
    expected = np.concatenate([kept.image(i).reshape(-1, channels) for i in range(3)]) / 255
    np.testing.assert_allclose(config["image_mean"], expected.mean(0), atol=1e-5)
    np.testing.assert_allclose(config["image_std"], expected.std(0), atol=1e-5)
    grid = tmp_path / "grid.png"
    measure = ["evaluate", "--model", str(out), "--data", str(data), "--split", "val"]
    assert main([*measure, "--grid", str(grid)]) == 0
    results = tmp_path / "results"
    predict = ["predict", str(data / "images"), "--model", str(out), "--out", str(results)]
    assert main(predict) == 0
    with Image.open(results / "3.png") as ids:
        assert ids.size == (48, 40)
    second = ["train", "unet", "--data", str(data), "--out", str(tmp_path / "second")]
    second += ["--start", str(out), *command[command.index("--device") :]]
    assert main([*second, "--in-channels", str(channels)]) == 0
    again = json.loads((tmp_path / "second" / "config.json").read_text())
    assert again["image_mean"] == config["image_mean"]


def test_the_statistics_of_images_may_be_given(tmp_path):
    data, out = write_camvid(tmp_path / "data", train=2), tmp_path / "net"
    command = ["train", "unet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    command += ["--steps", "1", "--batch-size", "2", "--crop", "16", "16", "--base-channels", "2"]
    command += ["--image-mean", "0.1", "0.2", "0.3", "--image-std", "0.4", "0.5", "0.6"]
    assert main(command) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["image_mean"], config["image_std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
