"""`config.json`: what it may hold, and the network that it describes."""

import inspect
import json
from contextlib import nullcontext
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segmodels.hub.checkpoint import AGAIN, CheckpointError
from segmodels.models._validation import MAX_CLASSES

FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
# Entries of config.json that say nothing of the network: derived ones, and what other tools write.
IGNORED_ENTRIES = {
    *("architectures", "segmodels_format", "id2label", "label2id", "num_labels", "extra"),
    *("model_type", "dtype", "torch_dtype", "transformers_version", "name_or_path"),
}

Network = TypeVar("Network", bound=nn.Module)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of `config.json`. CheckpointError if it is none, too long, or of a newer
    format."""
    try:
        size = path.stat().st_size
        config = json.loads(path.read_text("utf-8")) if size <= MAX_CONFIG_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}; {AGAIN}") from error
    if size > MAX_CONFIG_BYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes, more than the {MAX_CONFIG_BYTES:,} that a network can "
            f"need: class_names holds at most {MAX_CLASSES} names, and no other entry is long"
        )
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(config).__name__}")
    version = config.get("segmodels_format", FORMAT_VERSION)
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {short(version)}; this segmodels reads format {FORMAT_VERSION}: "
            "upgrade with `pip install -U segmodels`"
        )
    return config


def build(network: type[Network], config: dict[str, Any], path: Path, device: str) -> Network:
    """The network that the configuration describes. CheckpointError, naming the entry, if it
    describes none."""
    unknown = unknown_entries(network, config)
    if unknown:
        raise CheckpointError(
            f"{path} has entries that no {network.__name__} of this version knows: "
            f"{short(unknown)}. Upgrade with `pip install -U segmodels`, or put what is not about "
            "the network under 'extra'"
        )
    arguments = {name: config[name] for name in constructor_arguments(network) if name in config}
    try:
        with torch.device(device), _WithoutDraws() if device == "meta" else nullcontext():
            return network(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not describe a {network.__name__}: {error}") from error


class _WithoutDraws(TorchFunctionMode):
    """Leaves out the random numbers of an initialisation: on "meta" they would go nowhere, and
    their first draw there imports a second's worth of torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def unknown_entries(network: type, config: dict[str, Any]) -> list[str]:
    """The keys that are neither arguments of the network nor ignored; a tool's private ones begin
    with an underscore."""
    known = {*IGNORED_ENTRIES, *constructor_arguments(network)}
    return [key for key in config if key not in known and not key.startswith("_")]


def constructor_arguments(network: type) -> list[str]:
    constructor = inspect.signature(network.__init__)  # type: ignore[misc]  # a class, not a model
    return [name for name in constructor.parameters if name != "self"]
