"""Recovery when a device runs out of memory."""

import copy
import gc
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from segmodels.data._untrusted_images import PictureError

Answer = TypeVar("Answer")
Configuration = TypeVar("Configuration")

# What PyTorch's allocators say where they raise a bare RuntimeError: MPS, Linux and Windows.
MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory could not be allocated, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def first_that_fits(
    attempts: Iterable[tuple[str | None, Callable[[], Configuration]]],
    compute: Callable[[Configuration], Answer],
) -> tuple[Answer, str | None]:
    """Compute with the first configuration whose memory suffices.

    Args:
        attempts: In order, a note for the user and what makes the configuration, which is called
            only when it is its turn.
        compute: What is computed with a configuration.

    Returns:
        What `compute` returned, and the note of that attempt.

    Raises:
        PictureError: If memory runs out in every attempt. Other errors are raised at once.
    """
    last_error: BaseException | None = None
    for note, make in attempts:
        try:
            return compute(make()), note
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            last_error = error.with_traceback(None)  # whose frames hold the tensors
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise PictureError(
        f"there is not enough memory for this image ({last_error}): scale it down first, or give a "
        "smaller working_size"
    ) from last_error


def on_cpu(network: nn.Module) -> nn.Module:
    """A float32 copy on the CPU, made without another copy on the network's own device."""
    moved: dict[int, torch.Tensor] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        plain = tensor.detach().to("cpu", dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        moved[id(tensor)] = nn.Parameter(plain, requires_grad=False) if is_parameter else plain
    return copy.deepcopy(network, moved)
