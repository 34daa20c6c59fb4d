"""Training: from a data set and, for its encoder, VGG16's ImageNet weights to a folder that
`from_pretrained` reads."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .checkpoint import WEIGHTS_NAME
from .data import open_data
from .files import write_text
from .prepare import pick_device
from .recipe import RECIPE_NAME, Recipe
from .trainer import Trainer, TrainingError, check_same

__all__ = ["Recipe", "Trainer", "TrainingError", "train"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "metrics.jsonl"


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 0,
    checkpoint_seconds: float = 120.0,
    validate_every: int = 5,
    stop_after_steps: int | None = None,
) -> None:
    """Train, and leave in `out` the network (fp16), `training.json` and `metrics.jsonl`; continues
    from `out`'s checkpoint if there is one of the same recipe, and does nothing if `out` holds the
    finished training already.

    workers: processes that load pictures; 0: this one does.
    validate_every: epochs between two measurements on the split "val", if there is one.
    stop_after_steps: leave off there, as an interruption would (for tests).
    Raises TrainingError, DataError for the data set, CheckpointError for the VGG16 weights.
    """
    out = Path(out)
    checkpoint, log = out / CHECKPOINT_NAME, out / LOG_NAME
    if _is_finished(recipe, out):
        print(f"{out} holds this training already, finished", file=sys.stderr)
        return
    trainer = Trainer(recipe, open_data(recipe.data, "train"), pick_device(device))
    if checkpoint.exists():
        trainer.load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    _tidy(out, trainer.step)
    last_save = time.monotonic()
    with tqdm(total=trainer.total_steps, initial=trainer.step, unit="step", smoothing=0.1) as bar:
        while trainer.step < trainer.total_steps:
            for pixels, target in trainer.batches(workers):
                loss = trainer.take_step(pixels, target)
                bar.update()
                bar.set_postfix(epoch=trainer.epochs_done, loss=f"{loss:.3f}")
                if trainer.step % trainer.steps_per_epoch == 0:  # before a checkpoint may be saved
                    _append_line(log, trainer.epoch_record(validate_every))
                if trainer.step == stop_after_steps:
                    trainer.save(checkpoint)
                    return
                if time.monotonic() - last_save > checkpoint_seconds:
                    trainer.save(checkpoint)
                    last_save = time.monotonic()
    trainer.save(checkpoint)
    trainer.recompute_batch_norms()
    final = {"epoch": recipe.epochs, "step": trainer.step, "final": True}
    _append_line(log, final | trainer.validate())
    trainer.model.save_pretrained(out, dtype=torch.float16)
    write_text(out / RECIPE_NAME, json.dumps(recipe.published(), indent=2) + "\n")
    checkpoint.unlink()


def _is_finished(recipe: Recipe, out: Path) -> bool:
    """Whether `out` holds this training's result. TrainingError if it holds another's."""
    if (out / CHECKPOINT_NAME).exists() or not (out / WEIGHTS_NAME).exists():
        return False
    try:
        theirs = Recipe(**json.loads((out / RECIPE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{out} holds a network already, and no {RECIPE_NAME} that says how it was trained "
            f"({error}): give another --out"
        ) from error
    check_same(theirs, recipe, f"{out} holds")
    return True


def _tidy(out: Path, step: int) -> None:
    """Take away what an interrupted run left: half a checkpoint, and what it logged after `step`,
    where this one goes on."""
    for scratch in out.glob(f".{CHECKPOINT_NAME}.*.tmp"):
        scratch.unlink()
    log = out / LOG_NAME
    if not log.exists():
        return
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _is_until(line, step)]
    write_text(log, "".join(line + "\n" for line in kept))


def _is_until(line: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return record["step"] <= step and "final" not in record
    except (ValueError, KeyError, TypeError):  # cut off, or a final record
        return False


def _append_line(path: Path, record: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
