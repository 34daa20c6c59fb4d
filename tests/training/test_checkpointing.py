"""Trainings that SIGKILL, a full disk or changed data interrupt: the same steps, bit for bit."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import UNet
from segmodels.data.dataset import DataError
from segmodels.training.checkpointing import (
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from segmodels.training.runner import TrainingError, train
from segmodels.training.trainer import Trainer
from tests.support.serving import PATIENCE
from tests.support.trainings import RESULT, contents, trainer_for

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stops", [[1], [3], [5], [9], [2, 3, 7]])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(config, finished, tmp_path, stops):
    for stop in stops:
        train(config, tmp_path, validate_every=2, stop_after_steps=stop)
        assert "checkpoint.pt" in contents(tmp_path)
        assert "model.safetensors" not in contents(tmp_path)
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_what_was_logged_after_the_checkpoint_is_not_logged_twice(config, finished, tmp_path):
    train(config, tmp_path, validate_every=2, stop_after_steps=4)
    with open(tmp_path / "metrics.jsonl", "a") as file:  # as a run that was killed after step 9
        file.write('{"epoch": 2, "step": 6, "loss": 1.0}\n{"epoch": 3, "final": true}\n{"epo')
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_a_run_killed_before_its_first_checkpoint_restarts(config, finished, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "step": 3, "loss": 1.0}\n')
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


class Killed(BaseException):
    """Where SIGKILL would end the process."""


@pytest.mark.parametrize("where", ["half way through the file", "before it is moved"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(
    config, finished, tmp_path, monkeypatch, where
):
    train(config, tmp_path, validate_every=2, stop_after_steps=4)
    old = contents(tmp_path)["checkpoint.pt"]
    save = torch.save

    def killed_save(state, path):
        save(state, path)
        if where == "half way through the file":
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise Killed

    def killed_replace(*_):
        raise Killed

    trainer = trainer_for(config)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed_save)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing
        if where == "before it is moved":
            patch.setattr(Path, "replace", killed_replace)
        with pytest.raises(Killed):
            save_checkpoint(trainer, tmp_path / "checkpoint.pt")
    assert contents(tmp_path)["checkpoint.pt"] == old
    assert len([name for name in contents(tmp_path) if name.endswith(".tmp")]) == 1
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_a_checkpoint_of_another_config_is_refused(config, tmp_path):
    train(config, tmp_path, stop_after_steps=1)
    before = contents(tmp_path)
    other = replace(config, epochs=2, seed=1)
    with pytest.raises(TrainingError, match=r"other options \(epochs 3, now 2; seed 0, now 1\)"):
        train(other, tmp_path)
    assert contents(tmp_path) == before


def test_a_damaged_checkpoint_is_refused(config, tmp_path):
    train(config, tmp_path, stop_after_steps=1)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        checkpoint.write_bytes(content)
        with pytest.raises(
            TrainingError, match=r"checkpoint.pt is not a readable checkpoint; delete it to restart"
        ):
            train(config, tmp_path)


def test_a_checkpoint_of_an_older_version_has_the_defaults_of_newer_options(config, tmp_path):
    train(config, tmp_path, stop_after_steps=1)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["recipe"] = state.pop("config")
    for name in ("in_channels", "padding", "batch_norm", "optimizer", "steps", "patience"):
        del state["recipe"][name]
    del state["digests"], state["average"], state["scaler"], state["best"]
    torch.save(state, tmp_path / "checkpoint.pt")
    trainer = trainer_for(config)
    config, state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert config.dropout == 0.2
    restore_checkpoint(trainer, tmp_path / "checkpoint.pt", state)
    assert trainer.step == 1


# ---- what goes wrong on the way ----

# Imports once, then trains in children that are killed at random moments, until one is through. The
# moments are of a child's CPU time, so that a busy machine changes none: SIGPROF ends it as SIGKILL
# would. Plots are pixels.
KILLING = """
import os, random, signal, sys, warnings
import torch
from segmodels.data.dataset import DataError
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from tests.support.trainings import draw_pixels, trainer_for
from tqdm import tqdm
warnings.simplefilter("ignore")
torch.set_num_threads(1)
tqdm.monitor_interval = 0  # no thread that a fork would lose
data, out, seed = sys.argv[1:]

draw_pixels()
config = TrainingConfig("unet", data, epochs=3, half_size_epochs=1, batch_size=2, crop=(32, 32),
                base_channels=2, dropout=0.2, decoder_lr=0.01)
trainer_for(config)  # imports what a training imports
random.seed(int(seed))

def run(folder, moment):
    # Status and CPU seconds of a training that is killed at this moment, or never where it is 0.
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, moment)
        train(config, folder, validate_every=2, checkpoint_seconds=0)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    return status, used.ru_utime + used.ru_stime

_, whole = run(out + "-undisturbed", 0)
killed = 0
for share in (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0):  # steps begin at about 0.2
    status, _ = run(out, whole * random.uniform(0.15, share) if share else 0)
    killed += os.WIFSIGNALED(status)
    if not os.WIFSIGNALED(status):
        break
print("killed", killed, "exit", status)
"""


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(config, tmp_path):
    # A checkpoint after every step: about half of the kills fall into writing one.
    run = [sys.executable, "-c", KILLING, config.data, str(tmp_path / "out"), "0"]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    killed, status = result.stdout.split()[1::2]
    assert int(killed) >= 3
    assert status == "0", result.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "out-undisturbed")


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    config, finished, tmp_path, monkeypatch, capsys
):
    save, calls = torch.save, []

    def sometimes_full(state, path):
        calls.append(state["step"])
        if state["step"] in (4, 5):
            Path(path).write_bytes(b"half a checkpoint")
            full_disk()
        save(state, path)

    monkeypatch.setattr(torch, "save", sometimes_full)
    train(config, tmp_path, validate_every=2, checkpoint_seconds=0)
    assert calls == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    printed = capsys.readouterr().err
    assert "checkpoint.pt could not be written at step 4 ([Errno 28] No space left" in printed
    assert "the previous one is kept, and training continues: free some disk space" in printed
    assert contents(tmp_path) == contents(finished)


def test_a_disk_that_is_full_at_the_end_leaves_a_checkpoint_to_end_from(
    config, finished, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(UNet, "save_pretrained", full_disk)
        with pytest.raises(TrainingError, match=r"No space left.* free some disk space and run"):
            train(config, tmp_path, validate_every=2)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 9
    train(config, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


@pytest.fixture
def own_data(config, tmp_path):
    """The config on a copy of its data, which may be changed."""
    folder = tmp_path / "camvid"
    shutil.copytree(config.data, folder)
    return replace(config, data=str(folder))


def test_a_file_that_changed_between_two_runs_is_named(own_data, tmp_path):
    train(own_data, tmp_path / "out", stop_after_steps=2)
    label = Path(own_data.data) / "trainannot" / "003.png"
    before = label.read_bytes()
    Image.fromarray(np.array(Image.open(label))[::-1]).save(label)
    (Path(own_data.data) / "val" / "001.png").unlink()
    (Path(own_data.data) / "valannot" / "001.png").unlink()
    message = r"3 files .* changed since .*: trainannot/003.png, val/001.png, valannot/001.png; re"
    with pytest.raises(TrainingError, match=message):
        train(own_data, tmp_path / "out")
    label.write_bytes(before)
    with pytest.raises(TrainingError, match="2 files"):
        train(own_data, tmp_path / "out")


def test_a_file_that_breaks_while_training_ends_it_with_all_steps_kept(
    own_data, tmp_path, monkeypatch
):
    label = Path(own_data.data) / "trainannot" / "002.png"
    whole, take_step = label.read_bytes(), Trainer.take_step

    def break_after_the_first_epoch(self, *batch):
        if self.step == 3:
            label.write_bytes(b"no picture any more")
        return take_step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", break_after_the_first_epoch)
        with pytest.raises(DataError, match=r"002.png cannot be read as a label"):
            train(own_data, tmp_path / "out")
    kept = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["step"]
    assert kept >= 4
    label.write_bytes(whole)
    train(own_data, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == RESULT


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(config, tmp_path, monkeypatch):
    train(config, tmp_path, stop_after_steps=5)
    before = contents(tmp_path)["checkpoint.pt"]
    normalised = Trainer._normalised
    monkeypatch.setattr(Trainer, "_normalised", lambda *args: normalised(*args) * float("nan"))
    with pytest.raises(TrainingError, match=r"the loss became nan at step 5 \(epoch 2, .* lower"):
        train(config, tmp_path)
    assert contents(tmp_path)["checkpoint.pt"] == before
