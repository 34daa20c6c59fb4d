"""Going on where a device's memory is not enough."""

import copy
import gc
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from segmodels.data._untrusted_images import PictureError

Answer = TypeVar("Answer")
Way = TypeVar("Way")

# What PyTorch's allocators say where they raise a bare RuntimeError: MPS, Linux and Windows.
SHORTAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in SHORTAGES)


def first_that_fits(
    ways: Iterable[tuple[str | None, Callable[[], Way]]], compute: Callable[[Way], Answer]
) -> tuple[Answer, str | None]:
    """`compute` of the first way whose memory suffices, and the note that goes with that way. Each
    way is made when it is its turn. What is not about memory is raised at once."""
    shortage: BaseException | None = None
    for note, make in ways:
        try:
            return compute(make()), note
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            shortage = error.with_traceback(None)  # whose frames hold the tensors
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise PictureError(
        f"there is not enough memory for this picture ({shortage}): scale it down first, or give a "
        "smaller working_size"
    ) from shortage


def on_cpu(network: nn.Module) -> nn.Module:
    """A float32 copy on the CPU, without another on the network's own device."""
    moved: dict[int, torch.Tensor] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        plain = tensor.detach().to("cpu", dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        moved[id(tensor)] = nn.Parameter(plain, requires_grad=False) if is_parameter else plain
    return copy.deepcopy(network, moved)
