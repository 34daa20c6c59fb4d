"""Checkpoints of interrupted trainings; they can be resumed only with the same config and data."""

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from segmodels.data.validation import changed_files
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.record import config_of
from segmodels.training.trainer import Trainer
from segmodels.utils.files import atomic_write
from segmodels.utils.formatting import count_of


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the state of the trainer atomically."""
    origin = {"config": asdict(trainer.config), "digests": trainer.digests}
    with atomic_write(path) as scratch:
        torch.save(origin | trainer.state(), scratch)


def read_checkpoint(path: Path) -> tuple[TrainingConfig, dict[str, Any]]:
    """Read a checkpoint, also of earlier versions.

    Returns:
        The config, and the state for `restore_checkpoint`, on the CPU.

    Raises:
        TrainingError: If the file is not readable.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        entries = state["config"] if "config" in state else state["recipe"]
        return config_of(entries), state
    except (
        *(EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
        pickle.UnpicklingError,
    ) as error:
        raise _unreadable(path, error) from error


def restore_checkpoint(trainer: Trainer, path: Path, state: dict[str, Any]) -> None:
    """Restore the trainer to the state of a checkpoint.

    Raises:
        TrainingError: If files of the dataset have changed since, or the state does not belong to
            this network.
    """
    _check_data(trainer, path, state.get("digests"))
    try:
        trainer.restore(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{path} is not a readable checkpoint; delete it to restart ({error})")


def _check_data(trainer: Trainer, path: Path, digests: dict[str, str] | None) -> None:
    """Raise TrainingError if files have changed; digests are None in checkpoints of early
    versions."""
    changed = changed_files(digests, trainer.digests) if digests is not None else []
    if changed:
        names = ", ".join(changed[:5]) + f" and {len(changed) - 5} more" * (len(changed) > 5)
        raise TrainingError(
            f"{count_of(len(changed), 'file')} of {trainer.config.data} changed since {path} "
            f"was written: {names}; restore the files, or restart with a new --out"
        )
