"""The network that a training starts with: from random weights, VGG16 or a trained network."""

import inspect
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from segmodels.models._config import constructor_arguments
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.registry import model_class
from segmodels.models.vgg16 import load_vgg16
from segmodels.training.config import ARCHITECTURE, TrainingConfig, TrainingError

HEAD_CHANNELS = 512  # of FCN in training, for machines that VGG16's 4096 are too much for


@dataclass(frozen=True)
class CarriedOver:
    """What a network took over from the one that it was fine-tuned from.

    Attributes:
        classes: names of the classes that both have, whatever their order.
        new_classes: names of those that start from fresh weights.
        dropped_classes: names of the old network's classes that the new one lacks.
        new_layers: parameters without a counterpart of their shape, which start from fresh weights.
    """

    classes: list[str] = field(default_factory=list)
    new_classes: list[str] = field(default_factory=list)
    dropped_classes: list[str] = field(default_factory=list)
    new_layers: list[str] = field(default_factory=list)

    def describe(self, start: str) -> str:
        """One line for the user."""
        parts = [f"carried over from {start}: {_listed(self.classes) or 'no class'}"]
        for words, names in (
            ("classes that start from fresh weights", self.new_classes),
            ("classes left out", self.dropped_classes),
            ("layers that start from fresh weights", self.new_layers),
        ):
            if names:
                parts.append(f"{words}: {_listed(names)}")
        return "; ".join(parts)


def resolve_defaults(config: TrainingConfig) -> TrainingConfig:
    """Fill in the options that depend on the network or on `start`.

    Args:
        config: options, those of the architecture perhaps None.

    Returns:
        The config with every option that its network has; those of other networks are None.

    Raises:
        TrainingError: if `start` holds another network, or an option is not one of the network's.
        CheckpointError: if `start` cannot be loaded.
    """
    network = model_class(config.network)
    arguments = constructor_arguments(network)
    foreign = [
        name for name in ARCHITECTURE if getattr(config, name) is not None and name not in arguments
    ]
    if foreign:
        options = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise TrainingError(f"{options}: {config.network} has no such option; leave it out")
    if config.start:
        start = _load_start(config)
        known = {name: getattr(start, name) for name in arguments}
    else:
        parameters = inspect.signature(network.__init__).parameters
        known = {name: parameters[name].default for name in arguments}
        known |= {"head_channels": HEAD_CHANNELS} | network.arguments_from(asdict(config))
    if config.vgg16 and config.image_mean:
        raise TrainingError("--image-mean, --image-std: --vgg16 has its own; leave them out")
    names = [name for name in (*ARCHITECTURE, "working_size") if name in arguments]
    in_channels = config.in_channels or known["in_channels"]
    if config.start and in_channels == known["in_channels"] and in_channels not in (1, 3):
        names += ["image_mean", "image_std"]
    unset = {name: known[name] for name in names if getattr(config, name) is None}
    return replace(config, **unset)


def build_network(
    config: TrainingConfig, class_names: list[str]
) -> tuple[SegmentationModel, CarriedOver | None]:
    """Build the config's network with the weights that it starts from. Sets torch's random seed.

    Args:
        config: options without defaults to resolve, see `resolve_defaults`.
        class_names: of the dataset, in the order of the ids.

    Returns:
        The network, and what it carried over from `start` if there is one.

    Raises:
        TrainingError: if `start` holds another network.
        CheckpointError: for weights that cannot be loaded.
    """
    torch.manual_seed(config.seed)
    carried_over = None
    if config.start:
        model, carried_over = load_initial_model(config, class_names)
    else:
        network = model_class(config.network)
        model = network(class_names=class_names, **network.arguments_from(asdict(config)))
    for parameter in model.fixed_parameters():
        parameter.requires_grad_(False)
    if config.vgg16:
        load_vgg16(model, config.vgg16)
    return model, carried_over


def load_initial_model(
    config: TrainingConfig, class_names: list[str]
) -> tuple[SegmentationModel, CarriedOver]:
    """Build the network with the weights of `config.start`, its classes matched by name.

    Args:
        config: options whose `start` is a folder or a Hub id.
        class_names: of the dataset, in the order of the ids.

    Returns:
        The network, and what it carried over. Parameters of another shape, and those of classes
        that `start` does not have, are fresh.
    """
    old = _load_start(config)
    kind = type(old)
    arguments = {name: getattr(old, name) for name in constructor_arguments(kind)}
    arguments |= kind.arguments_from(asdict(config)) | {"class_names": class_names}
    colors = dict(zip(old.class_names, old.palette, strict=True))
    known = all(name in colors for name in class_names)
    arguments["palette"] = [colors[name] for name in class_names] if known else None
    if arguments["in_channels"] != old.in_channels:
        arguments |= {"image_mean": None, "image_std": None}
    model = kind(**arguments)
    sources = {name: i for i, name in enumerate(old.class_names)}
    pairs = [(i, sources[name]) for i, name in enumerate(class_names) if name in sources]
    new_layers = _copy_weights(old, model, pairs)
    return model, CarriedOver(
        classes=[class_names[i] for i, _ in pairs],
        new_classes=[name for name in class_names if name not in sources],
        dropped_classes=[name for name in old.class_names if name not in class_names],
        new_layers=new_layers,
    )


def _load_start(config: TrainingConfig) -> SegmentationModel:
    assert config.start
    model = load_model(config.start)
    kind = type(model)
    if kind.architecture != config.network:
        raise TrainingError(
            f"{config.start} holds a {kind.__name__}, and the network to train is "
            f"{config.network}: choose `segmodels train {kind.architecture}`, or another --start"
        )
    return model


@torch.no_grad()
def _copy_weights(
    old: SegmentationModel, new: SegmentationModel, pairs: list[tuple[int, int]]
) -> list[str]:
    """Copy the old weights into the new network, class by class where an axis counts classes.

    Args:
        pairs: (new id, old id) of each class that both have.

    Returns:
        The names of the new network's parameters that have no counterpart.
    """
    theirs, ours = old.state_dict(), new.state_dict()
    class_axes = _class_axes(new)
    fresh = []
    for name, tensor in ours.items():
        axes = class_axes[name]
        if name not in theirs or not _match(theirs[name], tensor, axes):
            if name in class_axes and not name.endswith("num_batches_tracked"):
                fresh.append(name)
            continue
        tensor[_positions([i for i, _ in pairs], axes, tensor)] = theirs[name][
            _positions([j for _, j in pairs], axes, tensor)
        ].to(tensor)
    return fresh


def _class_axes(model: SegmentationModel) -> dict[str, list[int]]:
    """Of each entry of the state, the axes that grow with the number of classes."""
    arguments = {name: getattr(model, name) for name in constructor_arguments(type(model))}
    names = [f"class {i}" for i in range(model.num_classes % 254 + 1)]  # another number
    other: SegmentationModel
    with torch.device("meta"):
        other = type(model)(**arguments | {"class_names": names, "palette": None})
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return {
        name: [axis for axis, size in enumerate(tensor.shape) if size != shapes[name][axis]]
        for name, tensor in model.state_dict().items()
    }


def _match(old: Tensor, new: Tensor, class_axes: list[int]) -> bool:
    """Whether the shapes are equal, class axes aside."""
    if old.ndim != new.ndim:
        return False
    return all(
        axis in class_axes or a == b
        for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=True))
    )


def _positions(ids: list[int], class_axes: list[int], tensor: Tensor) -> tuple[Any, ...]:
    """An index of `tensor` that takes the given ids along each class axis, all of the others."""
    if not class_axes:
        return (...,)
    axes = [
        torch.tensor(ids, dtype=torch.long) if axis in class_axes else torch.arange(size)
        for axis, size in enumerate(tensor.shape)
    ]
    return tuple(torch.meshgrid(*axes, indexing="ij"))


def _listed(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + f" and {more} more" * (more > 0)
