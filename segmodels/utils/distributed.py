"""One training or evaluation in several processes, as `accelerate launch` and `torchrun` start
them. In a process that was started alone, these functions are for that one."""

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
    """Processes, devices or trackers that cannot be had: why, and what to do."""


def process_count() -> int:
    return distributed.get_world_size() if _are_several() else 1


def process_index() -> int:
    return distributed.get_rank() if _are_several() else 0


def is_main_process() -> bool:
    """Whether this is the one that writes and prints, also after the processes have parted."""
    return process_index() == 0 and os.environ.get("RANK", "0") == "0"


def summed(values: Tensor) -> Tensor:
    """The sum over the processes, in each of them; `values` itself if there is one process."""
    if _are_several():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def shared(items: Sequence[Item]) -> Sequence[Item]:
    """Those of this process, when every item is one process's."""
    return items[process_index() :: process_count()]


def gathered(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in each of them."""
    if not _are_several():
        return list(items)
    lists: list[Any] = [None] * process_count()
    distributed.all_gather_object(lists, list(items))
    return [item for theirs in lists for item in theirs]


def whole_batch(part: Tensor) -> Tensor:
    """The parts, (n, ...), of all processes behind each other, of which only this one's passes on
    gradients; `part` itself if there is one process."""
    if not _are_several():
        return part
    counts = gathered([len(part)])
    parts = list(part.new_zeros(sum(counts), *part.shape[1:]).split(counts))
    parts[process_index()] = part.detach()
    parts = list(summed(torch.cat(parts)).split(counts))
    parts[process_index()] = part
    return torch.cat(parts)


def join_processes(device: str) -> str | torch.device:
    """Meet the processes that were launched together, and the device of this one; without such a
    launch, `device` as it is. They part when they end. A training's `accelerator_for` does the
    same."""
    _note_a_lonely_launch()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    atexit.register(_part)
    return PartialState(cpu=device == "cpu").device


def _part() -> None:
    """Close the connections to the others while this process still is whole: gloo's threads may
    abort one that ends with them open."""
    if _are_several():
        distributed.destroy_process_group()


def accelerator_for(
    device: str | torch.device = "auto",
    precision: str = "bf16",
    tracker: "str | GeneralTracker | None" = None,
    folder: Path | None = None,
) -> "Accelerator":
    """accelerate's view of this process: its device, precision, companions and tracker.

    device: "auto" (the best that is there), or a torch device for a process that runs alone.
    precision: "bf16", "fp16" or "fp32".
    tracker: accelerate's name for it, "tensorboard" or "wandb" for example, or an own one; those
        that write files write them to `folder`/logs.
    ProcessError for a device or tracker that is not there, or a precision that the device lacks.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    _check_tracker(tracker)
    _note_a_lonely_launch()
    if AcceleratorState._shared_state:  # of an earlier training in this process
        AcceleratorState._reset_state(reset_partial_state=not _are_several())
    try:
        wanted = None if device == "auto" else torch.device(device)
        if wanted is not None and wanted.type == "cuda" and wanted.index is not None:
            torch.cuda.set_device(wanted)
        accelerator = Accelerator(
            cpu=wanted is not None and wanted.type == "cpu",
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
    if wanted is not None and found != wanted.type:
        raise ProcessError(f"the device {wanted} is not there; {found} is")
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


def _note_a_lonely_launch() -> None:
    """accelerate's launcher starts one process on the CPU, however many it was asked for."""
    asked_for_several = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if asked_for_several and os.environ.get("ACCELERATE_USE_CPU") == "True":
        print(
            "segmodels: `accelerate launch` starts a single process on the CPU; for several: "
            "torchrun --nproc-per-node N -m segmodels ... --device cpu",
            file=sys.stderr,
        )


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
