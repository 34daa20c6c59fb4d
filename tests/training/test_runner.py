import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.tracking import GeneralTracker
from safetensors import safe_open

from segmodels import UNet, load_model
from segmodels.training import runner as train_module
from segmodels.training.runner import TrainingError, train
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
    assert json.loads((finished / "training.json").read_text()) == config.published()


def test_the_record_goes_back_to_the_first_step(config, finished, tmp_path):
    second = replace(config, start=str(finished), epochs=1)
    train(second, tmp_path / "second")
    record = json.loads((tmp_path / "second" / "training.json").read_text())
    assert record.pop("start_training") == config.published()
    assert record == second.published()
    before = (tmp_path / "second" / "model.safetensors").read_bytes()
    train(second, tmp_path / "second")  # finished: nothing happens
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == before


def test_the_log_has_a_line_an_epoch_and_a_final_one(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6), (3, 9), (3, 9)]
    assert ["val_mean_iou" in line for line in lines] == [False, True, False, True]
    assert [line.get("final") for line in lines] == [None, None, None, True]
    assert all(line["loss"] > 0 for line in lines[:3])


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
    assert "holds this training already" in capsys.readouterr().err


def test_a_finished_training_is_not_overwritten_by_another(config, finished, tmp_path):
    with pytest.raises(TrainingError, match=r"holds a training with other options \(seed 0, now 5"):
        train(replace(config, seed=5), finished)
    load_model(finished).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match=r"holds a network already, and no training.json"):
        train(config, tmp_path)


def test_a_data_set_without_validation_trains(config, tmp_path):
    folder = write_camvid(tmp_path / "data", train=2)
    train(replace(config, data=str(folder), epochs=1), tmp_path / "out", validate_every=1)
    assert set(contents(tmp_path / "out")) == RESULT
    assert "val_" not in (tmp_path / "out" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("options", [{"network": "segnet", "variant": "basic"}])
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


def test_a_tracker_is_told_what_the_log_says(config, tmp_path):
    tracker = ListTracker()
    train(config, tmp_path, validate_every=2, tracker=tracker)
    assert tracker.config["decoder_lr"] == 0.01
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for (step, values), line in zip(tracker.lines, log, strict=True):
        line.pop("final", None)
        assert values == line
        assert step == line["step"]


def test_tensorboard_finds_its_events_in_the_folder(config, finished, tmp_path):
    train(config, tmp_path, validate_every=2, tracker="tensorboard")
    events = b"".join(file.read_bytes() for file in tmp_path.glob("logs/**/*tfevents*"))
    assert b"loss" in events
    assert b"val_mean_iou" in events
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == contents(finished)["model.safetensors"]
