"""One training or evaluation in several processes, started by `accelerate launch` or `torchrun`.

In a process that was started alone, these functions are for that one, and need neither accelerate
nor an initialised process group.
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
LOGS_FOLDER = "logs"  # of trackers that write files


class ProcessError(RuntimeError):
    """A device, tracker or precision that the machine lacks: why, and what to do."""


def process_count() -> int:
    """Of the launch; 1 without one."""
    return distributed.get_world_size() if _are_several() else 1


def process_index() -> int:
    """From 0."""
    return distributed.get_rank() if _are_several() else 0


def is_main_process() -> bool:
    """Whether this is the one that writes and prints, also after the process group has ended."""
    return process_index() == 0 and os.environ.get("RANK", "0") == "0"


def summed(values: Tensor) -> Tensor:
    """The sum over the processes, in each of them; `values` itself if there is one process."""
    if _are_several():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def shared(items: Sequence[Item]) -> Sequence[Item]:
    """This process's share of items that are divided among the processes."""
    return items[process_index() :: process_count()]


def gathered(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in each of them."""
    if not _are_several():
        return list(items)
    lists: list[Any] = [None] * process_count()
    distributed.all_gather_object(lists, list(items))
    return [item for theirs in lists for item in theirs]


def whole_batch(part: Tensor) -> Tensor:
    """Concatenate the parts, (n, ...), of all processes; gradients flow to this process's alone."""
    if not _are_several():
        return part
    counts = gathered([len(part)])
    parts = list(part.new_zeros(sum(counts), *part.shape[1:]).split(counts))
    parts[process_index()] = part.detach()
    parts = list(summed(torch.cat(parts)).split(counts))
    parts[process_index()] = part
    return torch.cat(parts)


def join_processes(device: str) -> str | torch.device:
    """Join the processes that were launched together; the group ends with the process.

    Args:
        device: of a process that runs alone.

    Returns:
        This process's device; `device` as it is without a launch.
    """
    _warn_single_process()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    atexit.register(_leave_group)
    return PartialState(cpu=device == "cpu").device


def _leave_group() -> None:
    """Close the connections to the other processes before this one shuts down: gloo's threads may
    abort a process that ends with open ones."""
    if _are_several():
        distributed.destroy_process_group()


def accelerator_for(
    device: str | torch.device = "auto",
    precision: str = "bf16",
    tracker: "str | GeneralTracker | None" = None,
    folder: Path | None = None,
) -> "Accelerator":
    """accelerate's view of this process: its device, precision, process group and tracker.

    Args:
        device: "auto" (the best there is), or a torch device for a process that runs alone.
        precision: "bf16", "fp16" or "fp32".
        tracker: accelerate's name for it, "tensorboard" or "wandb" for example, or one's own; those
            that write files write them to `folder`/logs.
        folder: for such files.

    Raises:
        ProcessError: for a device or tracker that is not there, or a precision that the device
            lacks.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    _check_tracker(tracker)
    _warn_single_process()
    if AcceleratorState._shared_state:  # of an earlier training in this process
        AcceleratorState._reset_state(reset_partial_state=not _are_several())
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
        raise ProcessError(f"the device {requested} is not there; {found} is")
    if precision == "fp16" and accelerator.scaler is None:
        raise ProcessError(f"fp16 needs a GPU; on the {found} choose bf16 or fp32")
    return accelerator


def _check_tracker(tracker: "str | GeneralTracker | None") -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if not isinstance(tracker, str):
        return
    if tracker not in LOGGER_TYPE_TO_CLASS:
        raise ProcessError(
            f"there is no tracker {tracker!r}; choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}"
        )
    if tracker not in {str(found) for found in get_available_trackers()}:
        raise ProcessError(f"the tracker {tracker} is not installed: pip install {tracker}")


def _warn_single_process() -> None:
    """accelerate's launcher starts one process on the CPU, however many it was asked for."""
    is_launched = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if is_launched and os.environ.get("ACCELERATE_USE_CPU") == "True":
        print(
            "segmodels: `accelerate launch` starts a single process on the CPU; for several: "
            "torchrun --nproc-per-node N -m segmodels ... --device cpu",
            file=sys.stderr,
        )


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
