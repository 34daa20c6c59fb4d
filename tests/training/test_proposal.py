"""The command that `data check` proposes."""

import shlex

import numpy as np
import pytest
from PIL import Image

from segmodels.cli.main import main
from segmodels.data.validation import check_dataset
from segmodels.training.presets import config_from_preset
from segmodels.training.proposal import propose
from tests.support.datasets import write_camvid, write_unlisted


def proposal(folder, names):
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    reports, errors = check_dataset(folder)
    assert errors == []
    return propose(folder, reports)


def test_streets_get_the_road_preset(tmp_path):
    folder = write_camvid(tmp_path / "my streets", train=2, val=1)
    command, tip = proposal(folder, ["road", "building", "sky"])
    assert command == (
        f"segmodels train unet --data '{folder}' --out 'unet-my streets' --preset road"
    )
    assert "--vgg16 imagenet" in tip


def test_other_images_get_no_preset(tmp_path):
    folder = write_camvid(tmp_path / "pets", train=2, val=1)
    assert "--preset" not in proposal(folder, ["ground", "wall", "sky"])[0]


def test_grey_cells_without_val_are_trained_in_grey_and_held_out(tmp_path):
    folder = write_unlisted(tmp_path / "cells", "abcdef")
    for file in (folder / "images").iterdir():
        Image.open(file).convert("L").save(file)
    for file in (folder / "masks").iterdir():
        ids = np.array(Image.open(file))
        Image.fromarray((ids == 1).astype(np.uint8)).save(file)
    command, tip = proposal(folder, ["background", "nucleus"])
    assert command.endswith("--preset microscopy --in-channels 1 --val-fraction 0.2")
    assert "paper-unet" in tip


def test_many_channels_are_named(tmp_path):
    folder = write_unlisted(tmp_path / "satellite", "abc")
    for file in list((folder / "images").iterdir()):
        pixels = np.array(Image.open(file))[..., [0, 1, 2, 0]]
        file.unlink()
        np.save(file.with_suffix(".npy"), pixels)
    (command,) = proposal(folder, ["ground", "wall", "sky"])
    assert command.endswith("--in-channels 4")


@pytest.mark.parametrize("names", [["road", "building", "sky"], ["a", "b", "cell"]])
def test_data_check_prints_a_command_that_train_takes(names, tmp_path, capsys, monkeypatch):
    folder = write_camvid(tmp_path / "data", train=2, val=1)
    (folder / "classes.txt").write_text("\n".join(names))
    assert main(["data", "check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = shlex.split(next(line for line in lines if line.startswith("  segmodels train")))
    seen = []
    monkeypatch.setattr("segmodels.training.runner.train", lambda config, **_: seen.append(config))
    assert main([*command[1:], "--precision", "fp32"]) == 0
    preset = "road" if "road" in names else "microscopy"
    expected = config_from_preset(preset, data=str(folder), network="unet", precision="fp32")
    assert seen == [expected]
