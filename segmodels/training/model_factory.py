"""Creation of the initial network: from scratch, from VGG16 weights, or from a trained network."""

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

HEAD_CHANNELS = 512  # default for FCN in training; 4096 as in VGG16 is too slow on a CPU


@dataclass(frozen=True)
class CarriedOver:
    """What was copied from the network that training started from.

    Attributes:
        classes: Names of the classes that both networks have, in any order.
        new_classes: Names of the classes whose weights are initialised randomly.
        dropped_classes: Names of the initial network's classes that the new network lacks.
        new_layers: Parameters without a counterpart of the same shape, initialised randomly.
    """

    classes: list[str] = field(default_factory=list)
    new_classes: list[str] = field(default_factory=list)
    dropped_classes: list[str] = field(default_factory=list)
    new_layers: list[str] = field(default_factory=list)

    def describe(self, start: str) -> str:
        """Describe in one line, for the user, what was copied from `start`."""
        parts = [f"classes carried over from {start}: {_joined(self.classes) or 'none'}"]
        for label, names in (
            ("randomly initialised classes", self.new_classes),
            ("dropped classes", self.dropped_classes),
            ("randomly initialised layers", self.new_layers),
        ):
            if names:
                parts.append(f"{label}: {_joined(names)}")
        return "; ".join(parts)


def resolve_defaults(config: TrainingConfig) -> TrainingConfig:
    """Set the default options that depend on the network or on `start`.

    Args:
        config: The options; those of the architecture may be None.

    Returns:
        The config with all options of its network set; options of other networks are None.

    Raises:
        TrainingError: If `start` is another architecture, or an option does not apply to this one.
        CheckpointError: If `start` cannot be loaded.
    """
    network = model_class(config.network)
    arguments = constructor_arguments(network)
    foreign = [
        name for name in ARCHITECTURE if getattr(config, name) is not None and name not in arguments
    ]
    if foreign:
        options = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise TrainingError(f"{options}: not an option of {config.network}; omit it")
    if config.start:
        start = _load_start(config)
        known = {name: getattr(start, name) for name in arguments}
    else:
        parameters = inspect.signature(network.__init__).parameters
        known = {name: parameters[name].default for name in arguments}
        known |= {"head_channels": HEAD_CHANNELS} | network.arguments_from(asdict(config))
    if config.vgg16 and config.image_mean:
        raise TrainingError("--image-mean and --image-std are given by --vgg16; omit them")
    names = [name for name in (*ARCHITECTURE, "working_size") if name in arguments]
    in_channels = config.in_channels or known["in_channels"]
    if config.start and in_channels == known["in_channels"] and in_channels not in (1, 3):
        names += ["image_mean", "image_std"]
    unset = {name: known[name] for name in names if getattr(config, name) is None}
    return replace(config, **unset)


def build_network(
    config: TrainingConfig, class_names: list[str]
) -> tuple[SegmentationModel, CarriedOver | None]:
    """Create the network with its initial weights. Sets torch's random seed.

    Args:
        config: The options, resolved by `resolve_defaults`.
        class_names: Classes of the dataset in the order of the ids.

    Returns:
        The network, and what was copied from `start`, if set.

    Raises:
        TrainingError: If `start` is another architecture.
        CheckpointError: If weights cannot be loaded.
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
    """Create the network with the weights of `config.start`, matching classes by name.

    Args:
        config: The options, with `start` set to a folder or a Hub id.
        class_names: Classes of the dataset in the order of the ids.

    Returns:
        The network, and what was copied. Parameters of other shapes and those of new classes are
        initialised randomly.
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
            f"{config.start} contains a {kind.__name__}, but the network to train is "
            f"{config.network}: use `segmodels train {kind.architecture}`, or another --start"
        )
    return model


@torch.no_grad()
def _copy_weights(
    old: SegmentationModel, new: SegmentationModel, pairs: list[tuple[int, int]]
) -> list[str]:
    """Copy the old weights to the new network; along axes of classes, class by class.

    Args:
        old: The initial network.
        new: The new network.
        pairs: (new id, old id) of each class that both have.

    Returns:
        The names of the new network's parameters without a counterpart of the same shape.
    """
    old_state, new_state = old.state_dict(), new.state_dict()
    class_axes = _class_axes(new)
    not_copied = []
    for name, tensor in new_state.items():
        axes = class_axes[name]
        if name not in old_state or not _match(old_state[name], tensor, axes):
            if name in class_axes and not name.endswith("num_batches_tracked"):
                not_copied.append(name)
            continue
        tensor[_positions([i for i, _ in pairs], axes, tensor)] = old_state[name][
            _positions([j for _, j in pairs], axes, tensor)
        ].to(tensor)
    return not_copied


def _class_axes(model: SegmentationModel) -> dict[str, list[int]]:
    """For each entry of the state dict, the axes whose size is the number of classes."""
    arguments = {name: getattr(model, name) for name in constructor_arguments(type(model))}
    names = [
        f"class {i}" for i in range(model.num_classes % 254 + 1)
    ]  # a different number of classes
    other: SegmentationModel
    with torch.device("meta"):
        other = type(model)(**arguments | {"class_names": names, "palette": None})
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return {
        name: [axis for axis, size in enumerate(tensor.shape) if size != shapes[name][axis]]
        for name, tensor in model.state_dict().items()
    }


def _match(old: Tensor, new: Tensor, class_axes: list[int]) -> bool:
    """Whether the shapes are equal except along class axes."""
    if old.ndim != new.ndim:
        return False
    return all(
        axis in class_axes or a == b
        for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=True))
    )


def _positions(ids: list[int], class_axes: list[int], tensor: Tensor) -> tuple[Any, ...]:
    """An index of `tensor` that selects the given ids along class axes, and all along others."""
    if not class_axes:
        return (...,)
    axes = [
        torch.tensor(ids, dtype=torch.long) if axis in class_axes else torch.arange(size)
        for axis, size in enumerate(tensor.shape)
    ]
    return tuple(torch.meshgrid(*axes, indexing="ij"))


def _joined(names: list[str], limit: int = 12) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + f" and {more} more" * (more > 0)
