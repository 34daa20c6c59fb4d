"""Tiny trainings: their configuration, their trainer and what they leave."""

import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image

from segmodels.training import runner
from segmodels.training.config import TrainingConfig
from segmodels.training.model_factory import resolve_defaults
from segmodels.training.trainer import Trainer
from segmodels.utils.distributed import accelerator_for

# The files of a finished training.
RESULT = {
    "README.md",
    "config.json",
    "confusion.png",
    "curves.png",
    "metrics.jsonl",
    "model.safetensors",
    "preprocessor_config.json",
    "training.json",
}


def config_for(folder: Path, **options: object) -> TrainingConfig:
    """Three epochs of a tiny U-Net, of three steps each on six pictures."""
    tiny = {"epochs": 3, "batch_size": 2, "crop": (32, 32), "base_channels": 2, "warmup_steps": 2}
    return TrainingConfig("unet", str(folder), **{**tiny, "decoder_lr": 0.01, **options})


def tiny_trainer(folder: Path, **options: object) -> Trainer:
    return trainer_for(config_for(folder, **options))


def trainer_for(config: TrainingConfig) -> Trainer:
    return Trainer(resolve_defaults(config), accelerator_for("cpu", config.precision))


def contents(folder):
    """{name: bytes} of a training's files, without the times in its log."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if "metrics.jsonl" in files:
        files["metrics.jsonl"] = re.sub(rb', "seconds": [0-9.]+', b"", files["metrics.jsonl"])
    return files


def draw_pixels():
    """In place of each plot, draw a pixel whose colour depends on all that is to be plotted: a plot
    takes longer than a tiny training. test_plots.py draws the plots themselves.

    Returns:
        What is to be undone in the end.
    """

    def draw_curves(path, records):
        draw(path, [{k: v for k, v in record.items() if k != "seconds"} for record in records])

    def draw_confusion(path, matrix, *texts):
        draw(path, (matrix.tolist(), texts))

    def draw(path, content):
        color = tuple(hashlib.sha256(repr(content).encode()).digest()[:3])
        Image.new("RGB", (1, 1), color).save(path)

    patch = pytest.MonkeyPatch()
    patch.setattr(runner, "draw_curves", draw_curves)
    patch.setattr(runner, "draw_confusion", draw_confusion)
    return patch


@pytest.fixture(scope="session", autouse=True)
def pixels_for_plots():
    patch = draw_pixels()
    yield
    patch.undo()
