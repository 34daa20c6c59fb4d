"""Training or evaluation in several processes, started by `accelerate launch` or `torchrun`.

In a single process, these functions require neither accelerate nor a process group.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

Item = TypeVar("Item")
LOGS_FOLDER = "logs"  # for trackers that write files


class ProcessError(RuntimeError):
    """A device, tracker or precision is not available. The message says what to do."""


def process_count() -> int:
    """The number of processes."""
    return distributed.get_world_size() if _is_distributed() else 1


def process_index() -> int:
    """The index of this process, from 0."""
    return distributed.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this process writes files and prints; also valid once the process group is closed."""
    return process_index() == 0 and os.environ.get("RANK", "0") == "0"


def summed(values: Tensor) -> Tensor:
    """Sum over all processes, with the result in each of them; `values` itself in a single one."""
    if _is_distributed():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def shared(items: Sequence[Item]) -> Sequence[Item]:
    """The items assigned to this process when they are divided among all processes."""
    return items[process_index() :: process_count()]


def gathered(items: Sequence[Item]) -> list[Item]:
    """Gather the items of all processes in each of them."""
    if not _is_distributed():
        return list(items)
    lists: list[Any] = [None] * process_count()
    distributed.all_gather_object(lists, list(items))
    return [item for theirs in lists for item in theirs]


def whole_batch(part: Tensor) -> Tensor:
    """Concatenate the parts (n, ...) of all processes; only this one's receives gradients."""
    if not _is_distributed():
        return part
    counts = gathered([len(part)])
    parts = list(part.new_zeros(sum(counts), *part.shape[1:]).split(counts))
    parts[process_index()] = part.detach()
    parts = list(summed(torch.cat(parts)).split(counts))
    parts[process_index()] = part
    return torch.cat(parts)


def join_processes(device: str) -> str | torch.device:
    """Join the process group of the launcher, if any, until the process ends.

    Args:
        device: Device to use in a single process.

    Returns:
        The device of this process; `device` unchanged in a single process.
    """
    _warn_single_process()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    atexit.register(_leave_group)
    return PartialState(cpu=device == "cpu").device


def _leave_group() -> None:
    """Close the connections to other processes before shutdown: gloo's threads may abort a process
    that exits with open connections."""
    if _is_distributed():
        distributed.destroy_process_group()


def accelerator_for(
    device: str | torch.device = "auto",
    precision: str = "bf16",
    tracker: "str | GeneralTracker | None" = None,
    folder: Path | None = None,
) -> "Accelerator":
    """Create an Accelerator, and join the process group of the launcher, if any.

    Args:
        device: "auto" (the best available), or a torch device for a single process.
        precision: "bf16", "fp16" or "fp32".
        tracker: Name of a tracker in accelerate, such as "tensorboard" or "wandb", or a custom
            tracker; trackers that write files write to `folder`/logs.
        folder: Folder for such files.

    Raises:
        ProcessError: If the device, the tracker or the precision is not available.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    _check_tracker(tracker)
    _warn_single_process()
    if AcceleratorState._shared_state:  # from an earlier training in this process
        AcceleratorState._reset_state(reset_partial_state=not _is_distributed())
    try:
        requested = None if device == "auto" else torch.device(device)
        if requested is not None and requested.type == "cuda" and requested.index is not None:
            torch.cuda.set_device(requested)
        accelerator = Accelerator(
            cpu=requested is not None and requested.type == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=tracker,
            project_config=ProjectConfiguration(
                project_dir=None if folder is None else str(folder),
                logging_dir=None if folder is None else str(folder / LOGS_FOLDER),
            ),
        )
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ProcessError(f"{device} in {precision} cannot be used: {error}") from error
    found = accelerator.device.type
    if requested is not None and found != requested.type:
        raise ProcessError(f"the device {requested} is not available; use {found}")
    if precision == "fp16" and accelerator.scaler is None:
        raise ProcessError(f"fp16 requires a GPU; use bf16 or fp32 on the {found}")
    return accelerator


def _check_tracker(tracker: "str | GeneralTracker | None") -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if not isinstance(tracker, str):
        return
    if tracker not in LOGGER_TYPE_TO_CLASS:
        raise ProcessError(
            f"unknown tracker {tracker!r}: choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}"
        )
    if tracker not in {str(found) for found in get_available_trackers()}:
        raise ProcessError(f"the tracker {tracker} is not installed: pip install {tracker}")


def _warn_single_process() -> None:
    """Warn that accelerate's launcher starts only one process on the CPU."""
    is_launched = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if is_launched and os.environ.get("ACCELERATE_USE_CPU") == "True":
        print(
            "segmodels: `accelerate launch` starts a single process on the CPU; for several: "
            "torchrun --nproc-per-node N -m segmodels ... --device cpu",
            file=sys.stderr,
        )


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
