"""`training.json`: how a network was trained, and from what."""

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
NONE_IS_A_VALUE = ("folds", "fold")  # options of which None is no default to be filled in
EXTENDED = ("epochs", "steps", "patience")  # options that may change for a longer training


def fetch_record(source: str) -> dict[str, Any] | None:
    """The `training.json` of a folder or a Hub repository, None if there is no readable one."""
    try:
        record = json.loads(fetch(source, TRAINING_NAME).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_config(folder: Path) -> TrainingConfig:
    """The config in the folder's `training.json`.

    Raises:
        OSError, ValueError, TypeError: if there is none that can be read.
    """
    return config_of(json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8")))


def config_of(entries: dict[str, Any]) -> TrainingConfig:
    """The config in a record or a checkpoint, of earlier versions too.

    Those had an option of every architecture in each record, and with `start` its own default in
    place of what the network had: such entries say nothing, and become None.
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
        folder: of the network.
        config: the options, all resolved.
        start_training: the record of the training that this one started from, so that the way
            from the first step on is known.
        carried_over: what it took from there.
        held_out: keys of the training images that validation was on.
    """
    record = config.published()
    if carried_over is not None:
        record[CARRIED_OVER] = asdict(carried_over)
    if held_out is not None:
        record[HELD_OUT] = held_out
    if start_training:
        record[START_TRAINING] = start_training
    write_text(folder / TRAINING_NAME, json.dumps(record, indent=2) + "\n")


def check_same(theirs: TrainingConfig, ours: TrainingConfig, what: str) -> None:
    """Compare two configs, but for the length of the training and defaults left open in one.

    Raises:
        TrainingError: that begins with `what`, if they differ or ours is the shorter training.
    """
    old, new = theirs.published(), ours.published()
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
