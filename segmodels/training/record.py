"""`training.json`: the options that a network was trained with, and its initial network."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.download import fetch
from segmodels.hub.filenames import HELD_OUT, START_TRAINING, TRAINING_NAME
from segmodels.models._config import constructor_arguments
from segmodels.models.registry import model_class
from segmodels.training.config import ARCHITECTURE, TrainingConfig, TrainingError
from segmodels.training.model_factory import CarriedOver
from segmodels.utils.files import write_text

CARRIED_OVER = "carried_over"  # entry of the record: `CarriedOver`
NONE_IS_A_VALUE = ("folds", "fold")  # options for which None does not stand for a default
EXTENDED = ("epochs", "steps", "patience")  # options that may change when a training is extended


def fetch_record(source: str) -> dict[str, Any] | None:
    """Read `training.json` of a folder or a Hub repository; None if it is missing or invalid."""
    try:
        record = json.loads(fetch(source, TRAINING_NAME).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_config(folder: Path) -> TrainingConfig:
    """Read the config in `training.json` of a folder.

    Raises:
        OSError, ValueError, TypeError: If it is missing or invalid.
    """
    return config_of(json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8")))


def config_of(entries: dict[str, Any]) -> TrainingConfig:
    """The config in a record or a checkpoint, also of earlier versions.

    Earlier versions stored the options of all architectures and, with `start`, defaults instead of
    the network's actual values. Such entries are meaningless and are replaced by None.
    """
    names = {one.name for one in fields(TrainingConfig)}
    known = {name: value for name, value in entries.items() if name in names}
    config = TrainingConfig(**known)
    if "in_channels" in entries:
        return config
    kept = set() if config.start else {*constructor_arguments(model_class(config.network))}
    foreign: dict[str, Any] = dict.fromkeys({*ARCHITECTURE} - kept - {"dropout"})
    return replace(config, **foreign)


def write_record(
    folder: Path,
    config: TrainingConfig,
    start_training: dict[str, Any] | None,
    carried_over: CarriedOver | None,
    held_out: list[str] | None = None,
) -> None:
    """Write `training.json`.

    Args:
        folder: Folder of the network.
        config: The resolved options.
        start_training: Record of the initial network, so that the complete training history is
            known.
        carried_over: What was copied from the initial network.
        held_out: Keys of the training images that were held out for validation.
    """
    record = config.published()
    if carried_over is not None:
        record[CARRIED_OVER] = asdict(carried_over)
    if held_out is not None:
        record[HELD_OUT] = held_out
    if start_training:
        record[START_TRAINING] = start_training
    write_text(folder / TRAINING_NAME, json.dumps(record, indent=2) + "\n")


def check_same(previous: TrainingConfig, current: TrainingConfig, what: str) -> None:
    """Check that the config of a training is unchanged, ignoring options unset in one of the two.

    Args:
        previous: The config of the earlier run.
        current: The config of this run.
        what: Beginning of the error message, such as "my-unet contains".

    Raises:
        TrainingError: If options differ, or epochs or steps have been reduced.
    """
    old, new = previous.published(), current.published()
    changed = [
        f"{key} {old[key]!r}, now {new[key]!r}"
        for key in new
        if old[key] != new[key]
        and (key in NONE_IS_A_VALUE or None not in (old[key], new[key]))
        and (key not in EXTENDED or _is_shorter(old, new, key))
    ]
    if changed:
        raise TrainingError(
            f"{what} a training with other options ({'; '.join(changed)}): use the same options, "
            "or restart with a new --out"
        )


def _is_shorter(old: dict[str, Any], new: dict[str, Any], key: str) -> bool:
    return key != "patience" and new[key] < old[key]
