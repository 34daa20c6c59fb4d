"""Files of a checkpoint: found on the Hub or in a folder, and read without trust.

`config.json` and `model.safetensors`; pickles are neither asked for nor read.
"""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG_NAME = constants.CONFIG_NAME
WEIGHTS_NAME = constants.SAFETENSORS_SINGLE_FILE
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """Weights or a configuration that cannot be used: names the file, and what is wrong with it."""


def fetch(source: str, filename: str, download: dict[str, Any]) -> Path:
    """The local path of one file of a folder or, through the cache, of a Hub repository.

    download: further arguments of `hf_hub_download`.
    Raises CheckpointError where there is no such folder, repository, revision or file.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / filename).is_file():
            raise CheckpointError(
                f"{folder} has no {filename}: expected a folder written by save_pretrained, "
                f"with {CONFIG_NAME} and {WEIGHTS_NAME} (pickles are not read)"
            )
        return folder / filename
    try:
        return Path(hf_hub_download(source, filename, library_name="segmodels", **download))
    except HFValidationError as error:
        raise CheckpointError(
            f"{source!r} is neither a folder that exists nor a Hub id like 'org/name'"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{source} is not a folder, its {filename} is not in the cache, and the Hub could not "
            "be asked (is this machine online? was local_files_only meant?)"
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(
            f"{source} on the Hub has no {filename}: expected {CONFIG_NAME} and {WEIGHTS_NAME} "
            "(pickles are not read)"
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{source} could not be loaded from the Hub: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of `config.json`. CheckpointError if it is none, or of a newer format."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(config).__name__}")
    version = config.get("segmodels_format", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version!r}; this segmodels reads format {FORMAT_VERSION}: "
            "upgrade with `pip install -U segmodels`"
        )
    return config


def read_weights(
    path: Path, expected: dict[str, Tensor], map_location: str | torch.device, strict: bool
) -> dict[str, Tensor]:
    """The file's tensors on `map_location`, each in the dtype that the network has for it.

    expected: the network's state, of which only shapes and dtypes count.
    strict: names and shapes must be the expected ones, which is seen before any tensor is read;
        otherwise the tensors that fit are returned.
    Raises CheckpointError if that is not so, if the file is broken, or at a NaN or an infinity.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
            if strict:
                _compare(path, shapes, wanted)
            for name in [name for name in shapes if shapes[name] == wanted.get(name)]:
                tensor = file.get_tensor(name)
                if not torch.isfinite(tensor).all():
                    raise CheckpointError(
                        f"{path}: {name} has values that are not finite (NaN or infinity)"
                    )
                # A copy, since what safetensors gives lies in the file while that is open.
                tensors[name] = tensor.to(map_location, expected[name].dtype, copy=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    return tensors


def _compare(
    path: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> None:
    """CheckpointError unless both have the same names with the same shapes."""
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} {list(found[name])} instead of {list(wanted[name])}"
            for name in wanted
            if name in found and found[name] != wanted[name]
        ],
    }
    texts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if texts:
        raise CheckpointError(f"{path} does not fit its config.json: weights " + "; ".join(texts))
