import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.tracking import GeneralTracker
from safetensors import safe_open

from segmodels import Segmenter, UNet, load_model
from segmodels.data.dataset import DataError
from segmodels.training import evaluate, open_dataset
from segmodels.training import runner as train_module
from segmodels.training.dataloader import AugmentedData, WorkerError
from segmodels.training.model_factory import resolve_defaults
from segmodels.training.runner import TrainingError, read_log, train
from segmodels.training.trainer import Trainer
from tests.support.datasets import write_camvid
from tests.support.trainings import RESULT, contents

ROOT = Path(__file__).parents[2]


def test_a_finished_training_leaves_the_network_and_its_record(config, finished):
    assert set(contents(finished)) == RESULT
    with safe_open(finished / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    model = load_model(finished)
    assert isinstance(model, UNet)
    assert (model.base_channels, model.class_names) == (2, ["ground", "wall", "sky"])
    record = json.loads((finished / "training.json").read_text())
    assert record == resolve_defaults(config).published()


def test_the_record_goes_back_to_the_first_step(config, finished, tmp_path, capsys):
    second = replace(config, start=str(finished), epochs=1)
    train(second, tmp_path / "second")
    told = "classes carried over from"
    assert told in capsys.readouterr().err
    record = json.loads((tmp_path / "second" / "training.json").read_text())
    assert record.pop("start_training") == resolve_defaults(config).published()
    assert record.pop("carried_over")["classes"] == ["ground", "wall", "sky"]
    assert record == resolve_defaults(second).published()
    before = (tmp_path / "second" / "model.safetensors").read_bytes()
    train(second, tmp_path / "second")  # finished: nothing happens
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == before


def test_the_log_has_a_line_an_epoch_and_a_final_one(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6), (3, 9), (3, 9)]
    assert ["val_mean_iou" in line for line in lines] == [False, True, False, True]
    assert [line.get("final") for line in lines] == [None, None, None, True]
    assert all(line["loss"] > 0 for line in lines[:3])
    assert all(line["seconds"] >= 0 and 0 < line["learning_rate"] <= 0.01 for line in lines[:3])
    assert all(set(line["val_iou"]) <= {"ground", "wall", "sky"} for line in lines[1::2])


def test_checkpoints_are_written_as_time_passes(config, tmp_path, monkeypatch):
    steps = []
    save = lambda trainer, path: steps.append(trainer.step)  # noqa: E731
    monkeypatch.setattr(train_module, "save_checkpoint", save)
    train(config, tmp_path, checkpoint_seconds=0)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_a_finished_training_is_not_run_again(config, finished, capsys):
    before = contents(finished)
    train(config, str(finished))
    assert contents(finished) == before
    assert "already contains this training" in capsys.readouterr().err


def test_a_finished_training_is_not_overwritten_by_another(config, finished, tmp_path):
    with pytest.raises(
        TrainingError, match=r"contains a training with other options \(seed 0, now 5"
    ):
        train(replace(config, seed=5), finished)
    load_model(finished).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match=r"already contains a network, but no training.json"):
        train(config, tmp_path)


def test_a_dataset_without_validation_trains(config, tmp_path):
    folder = write_camvid(tmp_path / "data", train=2)
    train(replace(config, data=str(folder), epochs=1), tmp_path / "out", validate_every=1)
    assert set(contents(tmp_path / "out")) == RESULT - {"confusion.png"}
    assert "val_" not in (tmp_path / "out" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "options", [{"network": "segnet", "variant": "basic", "base_channels": None}]
)
def test_other_networks_train_too(config, tmp_path, options):
    train(replace(config, epochs=1, half_size_epochs=0, **options), tmp_path)
    assert set(contents(tmp_path)) == RESULT
    assert type(load_model(tmp_path)).__name__ == "SegNet"


# ---- options ----


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.9},
        {"schedule": "onecycle", "border_weight": 10.0, "elastic": 2.0, "degrade": 0.5},
    ],
)
def test_with_options_too_a_resumed_run_is_the_uninterrupted_one(config, tmp_path, options):
    other = replace(config, **options)
    train(other, tmp_path / "whole", validate_every=2)
    train(other, tmp_path / "parts", validate_every=2, stop_after_steps=4)
    train(other, tmp_path / "parts", validate_every=2)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


class ListTracker(GeneralTracker):
    """Keeps what it is told."""

    name, requires_logging_directory = "list", False

    def __init__(self):
        super().__init__()
        self.config, self.lines = {}, []

    @property
    def tracker(self):
        return self.lines

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        self.lines.append((step, values))


def test_a_tracker_gets_what_the_log_says(config, tmp_path):
    tracker = ListTracker()
    train(config, tmp_path, validate_every=2, tracker=tracker)
    assert tracker.config["decoder_lr"] == 0.01
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for (step, values), line in zip(tracker.lines, log, strict=True):
        line.pop("final", None)
        classes = line.pop("val_iou", {})
        assert values == line | {f"val_iou/{name}": iou for name, iou in classes.items()}
        assert step == line["step"]


def test_tensorboard_finds_its_events_in_the_folder(config, finished, tmp_path):
    train(config, tmp_path, validate_every=2, tracker="tensorboard")
    events = b"".join(file.read_bytes() for file in tmp_path.glob("logs/**/*tfevents*"))
    assert b"loss" in events
    assert b"val_mean_iou" in events
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == contents(finished)["model.safetensors"]


def test_tensorboard_gets_the_drawings(config, tmp_path):
    train(config, tmp_path, validate_every=2, tracker="tensorboard")
    events = b"".join(file.read_bytes() for file in tmp_path.glob("logs/**/*tfevents*"))
    assert b"confusion" in events
    assert b"curves" in events


# ---- one training in a folder ----

HOLD = """
import sys
from pathlib import Path
from segmodels.training.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_trainings_do_not_share_a_folder(config, finished, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        message = rf"another training \(process {other.pid}\) is running in .* another --out"
        with pytest.raises(TrainingError, match=message):
            train(config, tmp_path)
        assert set(contents(tmp_path)) == {".train.lock"}
        other.kill()  # its lock ends with it
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_only_temporary_files_of_its_own_are_removed(config, tmp_path):
    mine = [".notes.tmp", ".checkpoint.pt.backup.tmp", ".segmodels-old.tmp"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".saving-mine1234").mkdir()
    (tmp_path / ".saving-mine1234" / "thesis.txt").write_text("mine")
    left = [".segmodels-77-0123abcd.tmp", ".checkpoint.pt.77.tmp"]
    for name in left:
        (tmp_path / name).write_text("half written")
    (tmp_path / ".saving-ab12_x9z").mkdir()
    (tmp_path / ".saving-ab12_x9z" / "config.json").write_text("half written")
    train(replace(config, epochs=1), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == RESULT | {*mine, ".saving-mine1234"}


def test_a_refused_training_leaves_no_folder(config, tmp_path):
    with pytest.raises(TrainingError, match="not an option of unet"):
        train(replace(config, stride=16), tmp_path / "out")
    with pytest.raises(DataError):
        train(replace(config, data=str(tmp_path / "nothing")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- length ----


def test_a_number_of_steps_in_place_of_epochs(config, tmp_path):
    train(replace(config, epochs=None, half_size_epochs=0, steps=4), tmp_path)
    last = read_log(tmp_path / "metrics.jsonl")[-1]
    assert (last["step"], last["final"]) == (4, True)


def test_a_finished_training_is_extended(config, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "out")
    longer = replace(config, epochs=5)
    train(longer, tmp_path / "out", validate_every=2)
    assert "from step 9 to 15" in capsys.readouterr().err
    log = read_log(tmp_path / "out" / "metrics.jsonl")
    assert [(line["epoch"], "final" in line) for line in log] == [
        *((epoch, False) for epoch in (1, 2, 3, 4, 5)),
        (5, True),
    ]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["epochs"] == 5
    assert set(contents(tmp_path / "out")) == RESULT
    train(longer, tmp_path / "out")
    assert "finished" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="epochs 5, now 3"):
        train(config, tmp_path / "out")


def test_an_extended_training_starts_from_the_weights(config, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "out")
    seen = []
    take_step = Trainer.take_step

    def noted(self, *batch):
        seen.append((self.step, self.model.heatmaps.weight.detach().clone()))
        return take_step(self, *batch)

    monkeypatch.setattr(Trainer, "take_step", noted)
    train(replace(config, epochs=4), tmp_path / "out")
    assert [step for step, _ in seen] == [9, 10, 11]
    assert torch.equal(seen[0][1], load_model(finished).heatmaps.weight)


def scored(monkeypatch, scores):
    """Trainings validate to these mean IoUs, one after another."""
    validate = Trainer.validate
    left = iter(scores)

    def validated(self, quiet=False):
        return validate(self, quiet) | {"val_mean_iou": next(left)}

    monkeypatch.setattr(Trainer, "validate", validated)


def test_training_stops_early_when_val_mean_iou_does_not_improve(
    config, tmp_path, monkeypatch, capsys
):
    scored(monkeypatch, [0.5, 0.6, 0.6, 0.55, 0.7])
    longer = replace(config, epochs=9, half_size_epochs=0, patience=2)
    train(longer, tmp_path, validate_every=1, stop_after_steps=8)  # resumed on the way
    train(longer, tmp_path, validate_every=1)
    log = read_log(tmp_path / "metrics.jsonl")
    assert [line["epoch"] for line in log] == [1, 2, 3, 4, 4]
    assert "stopped early at epoch 4: the best val mean IoU was 60.00 % at step 6" in (
        capsys.readouterr().err
    )


def test_early_stopping_needs_validation_images(config, tmp_path):
    folder = write_camvid(tmp_path / "data", train=2)
    with pytest.raises(TrainingError, match=r"early stopping \(--patience\) needs validation"):
        train(replace(config, data=str(folder), patience=1), tmp_path / "out")


def test_the_network_of_the_best_validation_is_kept_beside_the_last(config, tmp_path, monkeypatch):
    scored(monkeypatch, [0.5, 0.6, 0.4, 0.3])
    states = {}
    log = train_module._Run.log

    def noted(self, record):
        states[record["step"]] = self.trainer.result.heatmaps.weight.detach().half().float()
        log(self, record)

    monkeypatch.setattr(train_module._Run, "log", noted)
    train(replace(config, epochs=4), tmp_path, validate_every=1, keep="best")
    best, last = load_model(tmp_path / "best"), load_model(tmp_path)
    assert torch.equal(best.heatmaps.weight, states[6])  # the second epoch's
    assert torch.equal(last.heatmaps.weight, states[12])
    assert not torch.equal(best.heatmaps.weight, last.heatmaps.weight)
    assert (tmp_path / "best" / "training.json").exists()


def test_a_killed_worker_costs_no_step(config, tmp_path, monkeypatch):
    get = AugmentedData.__getitem__

    def killed_in_the_second_epoch(self, index):
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return get(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(AugmentedData, "__getitem__", killed_in_the_second_epoch)
        with pytest.raises(WorkerError, match="ended unexpectedly"):
            train(config, tmp_path, workers=1)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    train(config, tmp_path)
    assert set(contents(tmp_path)) == RESULT


# ---- the papers' networks ----


def test_an_unpadded_network_in_grey_trains_resumes_and_is_measured(config, tmp_path):
    unet = {"padding": "valid", "in_channels": 1, "batch_norm": False, "base_channels": 2}
    unet |= {"crop": (188, 204), "border_weight": 10.0, "half_size_epochs": 0, "epochs": 2}
    valid = replace(config, **unet)
    train(valid, tmp_path / "whole", validate_every=1)
    train(valid, tmp_path / "parts", validate_every=1, stop_after_steps=4)
    evaluation = train(valid, tmp_path / "parts", validate_every=1)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    model = load_model(tmp_path / "whole")
    assert (model.padding, model.in_channels, model.batch_norm) == ("valid", 1, False)
    matrix = evaluate(Segmenter(model, "cpu", "auto"), open_dataset(config.data, "val"))
    assert matrix.confusion_matrix.shape == evaluation.confusion_matrix.shape


def test_images_smaller_than_the_crops_are_enlarged_in_inference_as_in_training(config, tmp_path):
    """The images are 48 x 40."""
    short = replace(config, epochs=1, half_size_epochs=0)
    sizes = {}
    for crop in ((32, 32), (48, 32), (32, 64)):
        train(replace(short, crop=crop), tmp_path / str(crop))
        sizes[crop] = load_model(tmp_path / str(crop)).minimum_size
    assert sizes == {(32, 32): None, (48, 32): None, (32, 64): 64}
    resized = replace(short, crop=(32, 64), working_size=36)
    train(resized, tmp_path / "resized")
    assert load_model(tmp_path / "resized").minimum_size is None
    # A start's minimum size is that of its own crops.
    start = tmp_path / "(32, 64)"
    train(replace(short, crop=(0, 0), start=str(start), frozen=0), tmp_path / "whole")
    assert load_model(tmp_path / "whole").minimum_size is None


def test_whole_images_train(config, tmp_path):
    train(replace(config, crop=(0, 0), epochs=1, half_size_epochs=0), tmp_path)
    assert set(contents(tmp_path)) == RESULT
