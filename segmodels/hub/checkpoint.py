"""Reading `model.safetensors` from untrusted sources. Pickles are never requested or read."""

import math
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segmodels.hub.filenames import CONFIG_NAME

MAX_HEADER_BYTES = 1 << 20
FLOATS = ("F64", "F32", "F16", "BF16")  # names in safetensors
INTEGERS = ("I64", "I32")
RELOAD = "if it is from the Hub, load it again with force_download=True"


class CheckpointError(ValueError):
    """Weights or a config are invalid. The message names the file and the problem."""


def max_weights_bytes(expected: Mapping[str, Tensor]) -> int:
    """The largest possible size of a file with exactly these tensors, in float64."""
    return MAX_HEADER_BYTES + 8 + 8 * sum(tensor.numel() for tensor in expected.values())


def read_weights(
    path: Path, expected: Mapping[str, Tensor], map_location: str | torch.device, strict: bool
) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Args:
        path: The file.
        expected: The state dict of the network; only shapes and dtypes are used.
        map_location: Device of the tensors.
        strict: Require the expected names, shapes and dtypes (floats of 16 to 64 bits are
            interchangeable, as are integers of 32 and 64 bits), checked in the header before any
            tensor is read. False: return only the tensors that match.

    Returns:
        The tensors by name, each in the expected dtype.

    Raises:
        CheckpointError: If the tensors do not match (or, unless `strict`, none matches), the file
            is corrupt, or a value is not finite.
    """
    tensors: dict[str, Tensor] = {}
    try:
        _check_header_length(path)
        with safe_open(path, framework="pt") as file:
            found = {name: _dtype_and_shape(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
            matching = [name for name in expected if _matches(found.get(name), expected[name])]
            if strict or not matching:
                _check_tensors(path, found, expected)
            for name in matching:
                # Copied, since safetensors memory-maps the file.
                stored = file.get_tensor(name)
                tensor = stored.to(map_location, expected[name].dtype, copy=True)
                if not _is_finite(stored if tensor.is_meta else tensor):
                    raise CheckpointError(
                        f"{path}: {name} has values that are not finite (NaN or infinity) as "
                        f"{tensor.dtype}: these weights cannot be used"
                    )
                tensors[name] = tensor
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {error}; {RELOAD}"
        ) from error
    return tensors


def _check_header_length(path: Path) -> None:
    """Raise SafetensorError if the header is too long; its length is in the first 8 bytes."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise SafetensorError(
            f"the declared header length of {length:,} bytes exceeds the limit of "
            f"{MAX_HEADER_BYTES:,}"
        )


def _dtype_and_shape(stored: Any) -> tuple[str, list[int]]:
    return stored.get_dtype(), stored.get_shape()


def _matches(found: tuple[str, list[int]] | None, expected: Tensor) -> bool:
    dtypes = FLOATS if expected.is_floating_point() else INTEGERS
    return found is not None and found[0] in dtypes and found[1] == list(expected.shape)


def _check_tensors(
    path: Path, found: Mapping[str, tuple[str, list[int]]], expected: Mapping[str, Tensor]
) -> None:
    """Raise CheckpointError unless names, shapes and types (float or integer) match."""
    differing = [
        name for name in expected if name in found and not _matches(found[name], expected[name])
    ]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [short(name).strip("'") for name in found if name not in expected],
        "with a different shape": [
            f"{name} {found[name][1]} instead of {list(expected[name].shape)}"
            for name in differing
            if found[name][1] != list(expected[name].shape)
        ],
        "with a different dtype": [
            f"{name} {found[name][0]} instead of {str(expected[name].dtype).removeprefix('torch.')}"
            for name in differing
            if found[name][1] == list(expected[name].shape)
        ],
    }
    texts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if texts:
        raise CheckpointError(
            f"{path} does not match its {CONFIG_NAME}; tensors: {'; '.join(texts)}. Use files of "
            "the same network"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; such values make the minimum or maximum non-finite."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    minimum, maximum = torch.aminmax(tensor)
    return math.isfinite(minimum) and math.isfinite(maximum)
