"""What an interrupted training goes on from: its checkpoint, for the same config and data only."""

from dataclasses import asdict
from pathlib import Path

import torch

from segmodels.data.validation import changed_files
from segmodels.training.config import TrainingConfig, TrainingError, check_same
from segmodels.training.trainer import Trainer
from segmodels.utils.files import whole_file


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Written whole beside `path`, then moved there: an interruption leaves the old one."""
    origin = {"config": asdict(trainer.config), "digests": trainer.digests}
    with whole_file(path) as scratch:
        torch.save(origin | trainer.state(), scratch)


def load_checkpoint(trainer: Trainer, path: Path) -> None:
    """TrainingError if it is damaged, of another config or of a data set that has changed since."""
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        check_same(TrainingConfig(**state["config"]), trainer.config, f"{path} is of")
        _check_data(trainer, path, state.get("digests"))
        trainer.restore(state)
    except TrainingError:
        raise
    except Exception as error:  # whatever a damaged file makes torch raise
        raise TrainingError(
            f"{path} is no checkpoint that this version reads: {error}; delete it to begin anew"
        ) from error


def _check_data(trainer: Trainer, path: Path, digests: dict[str, str] | None) -> None:
    """digests: None in checkpoints of older versions."""
    changed = changed_files(digests, trainer.digests) if digests is not None else []
    if changed:
        names = ", ".join(changed[:5]) + f" and {len(changed) - 5} more" * (len(changed) > 5)
        files = "1 file" if len(changed) == 1 else f"{len(changed)} files"
        raise TrainingError(
            f"{files} of {trainer.config.data} changed since {path} was written: {names}; put back "
            "what was there, or give another --out to begin anew"
        )
