"""Training, evaluation and prediction in two processes, on the CPU, are those in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import UNet
from segmodels.cli.main import main
from segmodels.training.runner import train
from segmodels.utils.distributed import (
    ProcessError,
    accelerator_for,
    gathered,
    process_count,
    summed,
    whole_batch,
)
from tests.support.datasets import write_camvid
from tests.support.serving import PATIENCE
from tests.support.trainings import RESULT, config_for

ROOT = Path(__file__).parents[2]
# Predict, evaluate, then train: what two processes do when they are launched together.
PROGRAM = """
import contextlib, os, sys, warnings
from segmodels.cli.main import main
warnings.simplefilter("ignore")
data, images, model, out = sys.argv[1:]
predict = ["predict", images, "--model", model, "--out", f"{out}/masks", "--resume"]
with open(f"{out}/predict-{os.environ['RANK']}.txt", "w") as file:
    with contextlib.redirect_stdout(file):
        print(main([*predict, "--device", "cpu"]))
figures = f"{out}/figures.json"
evaluate = ["evaluate", "--model", model, "--data", data, "--json", figures, "--device", "cpu"]
train = ["train", "unet", "--data", data, "--out", f"{out}/net", "--device", "cpu",
         "--epochs", "3", "--batch-size", "3", "--crop", "32", "32", "--base-channels", "2",
         "--warmup-steps", "2", "--decoder-lr", "0.001", "--precision", "fp32",
         "--border-weight", "3", "--lovasz", "0.5", "--balance", "1",
         "--validate-every", "1", "--ema", "0.5"]
sys.exit(main([*evaluate, "--precision", "fp32"]) or main(train))
"""
OPTIONS = {"batch_size": 3, "precision": "fp32", "border_weight": 3.0, "balance": 1.0, "ema": 0.5}
OPTIONS |= {"decoder_lr": 0.001, "lovasz": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """6 pictures for training; void is dealt unevenly, one picture is nothing but void."""
    root = write_camvid(tmp_path_factory.mktemp("data") / "camvid", train=6, val=3, test=3)
    for number in range(3):
        path = root / "trainannot" / f"{number:03}.png"
        ids = np.array(Image.open(path))
        ids[: (20, 35, 40)[number]] = 3
        Image.fromarray(ids).save(path)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "unet"
    UNet(class_names=["ground", "wall", "sky"], base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images of three sizes, and of a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate([(30, 20), (16, 40), (9, 9)] * 2):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def two_processes(data, images, model, tmp_path_factory):
    """The folder that two processes filled, and what they printed."""
    out = tmp_path_factory.mktemp("two")
    (out / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*launcher, out / "program.py", data, images, model, out],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return out, result


def test_two_processes_train_to_the_figures_of_one(two_processes, data, tmp_path):
    train(config_for(data, **OPTIONS), tmp_path / "net", validate_every=1)
    logs = [
        [json.loads(line) for line in (out / "net" / "metrics.jsonl").read_text().splitlines()]
        for out in (tmp_path, two_processes[0])
    ]
    assert len(logs[0]) == len(logs[1]) == 4
    for alone, together in zip(*logs, strict=True):
        # Sums in another order: float32 keeps 7 digits. The running means of the batch norms lag
        # behind biases that have no gradient but rounding, and move all the same; at the end they
        # are recomputed, and the metrics are the same.
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            if name == "seconds":
                continue
            tolerance = {"abs": 1e-4 if "final" in alone else 5e-3}
            if name == "loss":
                tolerance = {"rel": 1e-5}
            elif name == "val_iou" and "final" not in alone:
                tolerance = {"abs": 15e-3}  # of each of three classes
            assert together[name] == pytest.approx(value, **tolerance), name
    assert {path.name for path in (two_processes[0] / "net").iterdir()} == RESULT


def test_two_processes_measure_what_one_measures(two_processes, data, model, tmp_path):
    command = ["evaluate", "--model", str(model), "--data", str(data), "--device", "cpu"]
    assert main([*command, "--precision", "fp32", "--json", str(tmp_path / "figures.json")]) == 0
    alone = json.loads((tmp_path / "figures.json").read_text())
    assert json.loads((two_processes[0] / "figures.json").read_text()) == alone
    assert alone["pictures"] == 3


def test_two_processes_segment_each_image_once_and_report_together(two_processes):
    out, result = two_processes
    first, second = ((out / f"predict-{rank}.txt").read_text() for rank in range(2))
    assert first.startswith("6 of 7 images segmented")
    assert first.endswith("\n1\n")  # the exit status
    assert second == "1\n"
    assert "broken.png" in result.stderr
    names = {f"{number}{end}.png" for number in range(6) for end in ("", "_overlay")}
    assert names <= {path.name for path in (out / "masks").iterdir()}
    assert not list((out / "masks").glob("broken*"))


def test_only_one_of_two_processes_prints(two_processes):
    printed = two_processes[1].stdout
    assert printed.count("3 of 3 images") == 1
    assert printed.count("mean IoU") == 2  # of the evaluation, and of the training's end
    assert printed.count("the trained network is in") == 1


def test_alone_sums_and_lists_are_ones_own():
    values = torch.arange(3)
    assert summed(values) is values
    assert whole_batch(values) is values
    assert gathered((1, 2)) == [1, 2]
    assert process_count() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tracker": "notebook"}, "unknown tracker 'notebook': choose one of .*tensorboard"),
        ({"tracker": "clearml"}, "the tracker clearml is not installed: pip install clearml"),
        ({"precision": "fp16"}, "fp16 requires a GPU; use bf16 or fp32 on the cpu"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_what_the_machine_lacks_is_named(options, message):
    with pytest.raises(ProcessError, match=message):
        accelerator_for(**{"device": "cpu", **options})


def test_trainings_of_several_precisions_follow_each_other_in_one_process():
    found = [accelerator_for("cpu", precision).mixed_precision for precision in ("bf16", "fp32")]
    assert found == ["bf16", "no"]


def test_a_launch_of_one_process_in_place_of_several_is_reported(monkeypatch, capsys):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # as `accelerate launch --cpu` sets them
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    accelerator_for("cpu")
    assert "torchrun --nproc-per-node N" in capsys.readouterr().err
