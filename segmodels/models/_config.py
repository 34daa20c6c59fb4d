"""Reading of `config.json`, and construction of the network that it describes."""

import inspect
import json
from contextlib import nullcontext
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segmodels.hub.checkpoint import RELOAD, CheckpointError
from segmodels.models._validation import MAX_CLASSES

FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
# Entries of config.json that are not constructor arguments: derived ones and those of other tools.
IGNORED_ENTRIES = {
    *("architectures", "segmodels_format", "id2label", "label2id", "num_labels", "extra"),
    *("model_type", "dtype", "torch_dtype", "transformers_version", "name_or_path"),
}

Network = TypeVar("Network", bound=nn.Module)


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.json` (UTF-8, with or without a byte order mark).

    Raises:
        CheckpointError: If it is not a JSON object, is too long, or has a newer format.
    """
    try:
        size = path.stat().st_size
        config = json.loads(path.read_text("utf-8-sig")) if size <= MAX_CONFIG_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}; {RELOAD}") from error
    if size > MAX_CONFIG_BYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes, more than the limit of {MAX_CONFIG_BYTES:,}: class_names "
            f"can have at most {MAX_CLASSES} names, and no other entry is long"
        )
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must contain a JSON object, got {type(config).__name__}")
    version = config.get("segmodels_format", FORMAT_VERSION)
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {short(version)}; this segmodels reads format {FORMAT_VERSION}: "
            "upgrade with `pip install -U segmodels`"
        )
    return config


def build(network: type[Network], config: dict[str, Any], path: Path, device: str) -> Network:
    """Build the network that the config describes.

    Args:
        network: The class of the network.
        config: Content of `config.json`.
        path: Path of that file, for error messages.
        device: "cpu", or "meta" to allocate no memory.

    Raises:
        CheckpointError: For unknown entries, invalid arguments, or derived entries (such as
            id2label) that contradict `class_names`.
    """
    unknown = unknown_entries(network, config)
    if unknown:
        raise CheckpointError(
            f"{path} has entries that are not arguments of {network.__name__} in this version: "
            f"{short(unknown)}. Upgrade with `pip install -U segmodels`, or move your own entries "
            "into 'extra'"
        )
    arguments = {name: config[name] for name in constructor_arguments(network) if name in config}
    try:
        with torch.device(device), _WithoutRandomInit() if device == "meta" else nullcontext():
            built = network(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not describe a {network.__name__}: {error}") from error
    _check_labels(config, path)
    return built


def _check_labels(config: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if id2label, label2id or num_labels contradict `class_names`."""
    names = config["class_names"]
    derived = {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "num_labels": len(names),
    }
    for key, expected in derived.items():
        if config.get(key) not in (None, expected):
            raise CheckpointError(
                f"{path}: {key} {short(config[key])} contradicts class_names {short(names)}. "
                f"class_names takes precedence: correct it, and remove {key} or make it consistent"
            )


class _WithoutRandomInit(TorchFunctionMode):
    """Skips random initialisation: on "meta" it has no effect, but the first random call imports
    torch's compiler, which takes a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def unknown_entries(network: type, config: dict[str, Any]) -> list[str]:
    """The keys that are not arguments of the network, not ignored, and not private (with a leading
    underscore)."""
    known = {*IGNORED_ENTRIES, *constructor_arguments(network)}
    return [key for key in config if key not in known and not key.startswith("_")]


def constructor_arguments(network: type) -> list[str]:
    """The names of the constructor's arguments, in order."""
    constructor = inspect.signature(network.__init__)  # type: ignore[misc]  # a class, not a model
    return [name for name in constructor.parameters if name != "self"]
