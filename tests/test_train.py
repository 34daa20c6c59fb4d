import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import trainer_for, write_camvid
from safetensors import safe_open

from segmodels import UNet, load_model
from segmodels import train as train_module
from segmodels.recipe import Recipe
from segmodels.resume import load_checkpoint, save_checkpoint
from segmodels.train import TrainingError, train

RESULT = {"README.md", "config.json", "metrics.jsonl", "model.safetensors", "training.json"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Three epochs, the first at half the size, of three steps each."""
    folder = write_camvid(tmp_path_factory.mktemp("data") / "camvid", train=6, val=2)
    tiny = {"epochs": 3, "half_size_epochs": 1, "batch_size": 2, "crop": (32, 32)}
    return Recipe("unet", str(folder), base_channels=2, dropout=0.2, decoder_lr=0.01, **tiny)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("out") / "uninterrupted"
    train(recipe, out, validate_every=2)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_training_leaves_the_network_and_its_record(recipe, finished):
    assert set(contents(finished)) == RESULT
    with safe_open(finished / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    model = load_model(finished)
    assert isinstance(model, UNet)
    assert (model.base_channels, model.class_names) == (2, ["ground", "wall", "sky"])
    assert json.loads((finished / "training.json").read_text()) == recipe.published()


def test_the_log_has_a_line_an_epoch_and_a_final_one(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6), (3, 9), (3, 9)]
    assert ["val_mean_iou" in line for line in lines] == [False, True, False, True]
    assert [line.get("final") for line in lines] == [None, None, None, True]
    assert all(line["loss"] > 0 for line in lines[:3])


@pytest.mark.parametrize("stops", [[1], [3], [5], [9], [2, 3, 7]])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(recipe, finished, tmp_path, stops):
    for stop in stops:
        train(recipe, tmp_path, validate_every=2, stop_after_steps=stop)
        assert "checkpoint.pt" in contents(tmp_path)
        assert "model.safetensors" not in contents(tmp_path)
    train(recipe, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_what_was_logged_after_the_checkpoint_is_not_logged_twice(recipe, finished, tmp_path):
    train(recipe, tmp_path, validate_every=2, stop_after_steps=4)
    with open(tmp_path / "metrics.jsonl", "a") as file:  # as a run that was killed after step 9
        file.write('{"epoch": 2, "step": 6, "loss": 1.0}\n{"epoch": 3, "final": true}\n{"epo')
    train(recipe, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(recipe, finished, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "step": 3, "loss": 1.0}\n')
    train(recipe, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


class Killed(BaseException):
    """Where SIGKILL would end the process."""


@pytest.mark.parametrize("where", ["half way through the file", "before it is moved"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(
    recipe, finished, tmp_path, monkeypatch, where
):
    train(recipe, tmp_path, validate_every=2, stop_after_steps=4)
    old = contents(tmp_path)["checkpoint.pt"]
    save = torch.save

    def killed_save(state, path):
        save(state, path)
        if where == "half way through the file":
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise Killed

    def killed_replace(*_):
        raise Killed

    trainer = trainer_for(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed_save)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing
        if where == "before it is moved":
            patch.setattr(Path, "replace", killed_replace)
        with pytest.raises(Killed):
            save_checkpoint(trainer, tmp_path / "checkpoint.pt")
    assert contents(tmp_path)["checkpoint.pt"] == old
    assert len([name for name in contents(tmp_path) if name.endswith(".tmp")]) == 1
    train(recipe, tmp_path, validate_every=2)
    assert contents(tmp_path) == contents(finished)


def test_checkpoints_are_written_as_time_passes(recipe, tmp_path, monkeypatch):
    steps = []
    save = lambda trainer, path: steps.append(trainer.step)  # noqa: E731
    monkeypatch.setattr(train_module, "save_checkpoint", save)
    train(recipe, tmp_path, checkpoint_seconds=0)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_a_checkpoint_of_another_recipe_is_refused(recipe, tmp_path):
    train(recipe, tmp_path, stop_after_steps=1)
    before = contents(tmp_path)
    other = replace(recipe, epochs=4, seed=1)
    with pytest.raises(TrainingError, match=r"other options \(epochs 3, now 4; seed 0, now 1\)"):
        train(other, tmp_path)
    assert contents(tmp_path) == before


def test_a_damaged_checkpoint_is_refused(recipe, tmp_path):
    train(recipe, tmp_path, stop_after_steps=1)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        checkpoint.write_bytes(content)
        with pytest.raises(
            TrainingError, match=r"checkpoint.pt is no checkpoint that this version"
        ):
            train(recipe, tmp_path)


def test_a_checkpoint_of_an_older_version_has_the_defaults_of_newer_options(recipe, tmp_path):
    train(recipe, tmp_path, stop_after_steps=1)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["recipe"]["variant"]
    torch.save(state, tmp_path / "checkpoint.pt")
    trainer = trainer_for(recipe)
    load_checkpoint(trainer, tmp_path / "checkpoint.pt")
    assert trainer.step == 1


def test_a_finished_training_is_not_run_again(recipe, finished, capsys):
    before = contents(finished)
    train(recipe, str(finished))
    assert contents(finished) == before
    assert "holds this training already" in capsys.readouterr().err


def test_a_finished_training_is_not_overwritten_by_another(recipe, finished, tmp_path):
    with pytest.raises(TrainingError, match=r"holds a training with other options \(seed 0, now 5"):
        train(replace(recipe, seed=5), finished)
    load_model(finished).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match=r"holds a network already, and no training.json"):
        train(recipe, tmp_path)


def test_a_data_set_without_validation_trains(recipe, tmp_path):
    folder = write_camvid(tmp_path / "data", train=2)
    train(replace(recipe, data=str(folder), epochs=1), tmp_path / "out", validate_every=1)
    assert set(contents(tmp_path / "out")) == RESULT
    assert "val_" not in (tmp_path / "out" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("options", [{"network": "segnet", "variant": "basic"}])
def test_other_networks_train_too(recipe, tmp_path, options):
    train(replace(recipe, epochs=1, half_size_epochs=0, **options), tmp_path)
    assert set(contents(tmp_path)) == RESULT
    assert type(load_model(tmp_path)).__name__ == "SegNet"
