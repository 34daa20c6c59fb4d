"""Recovery when a device runs out of memory."""

import copy
import gc
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from segmodels.data._untrusted_images import PictureError

Result = TypeVar("Result")
Configuration = TypeVar("Configuration")

# Messages of PyTorch's allocators that raise a plain RuntimeError: MPS, Linux and Windows.
MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error reports a failed memory allocation, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def first_that_fits(
    attempts: Iterable[tuple[str | None, Callable[[], Configuration]]],
    compute: Callable[[Configuration], Result],
) -> tuple[Result, str | None]:
    """Call `compute` with one configuration after another until it does not run out of memory.

    Args:
        attempts: Pairs of a note for the user and a function that creates the configuration, in
            the order in which they are tried. Configurations are created only when needed.
        compute: The computation, a function of the configuration.

    Returns:
        The result of `compute`, and the note of the successful attempt.

    Raises:
        PictureError: If memory runs out in every attempt. Other errors are raised immediately.
    """
    last_error: BaseException | None = None
    for note, make in attempts:
        try:
            return compute(make()), note
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            last_error = error.with_traceback(None)  # its frames keep the tensors alive
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise PictureError(
        f"there is not enough memory for this image ({last_error}): scale it down first, or use a "
        "smaller working_size"
    ) from last_error


def on_cpu(network: nn.Module) -> nn.Module:
    """Copy the network to the CPU in float32, without a temporary copy on its own device."""
    moved: dict[int, torch.Tensor] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        plain = tensor.detach().to("cpu", dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        moved[id(tensor)] = nn.Parameter(plain, requires_grad=False) if is_parameter else plain
    return copy.deepcopy(network, moved)
