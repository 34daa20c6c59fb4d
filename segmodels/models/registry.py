"""The list of architectures.

To add a network, register its class under a short name and import its module in
`segmodels/models/__init__.py` (or, for a network outside this package, anywhere):

    @register_model("toy")
    class Toy(SegmentationModel):
        display_name = "Toy"
        paper = Paper("Doe", "2026-01", "https://example.org")

Properties of a network (display name, tile context, learning rates, ...) are members of
`SegmentationModel`; no other module enumerates the networks.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from segmodels.models.base import SegmentationModel

_MODEL_CLASSES: dict[str, type["SegmentationModel"]] = {}

Model = TypeVar("Model", bound="SegmentationModel")


def register_model(name: str) -> Callable[[type[Model]], type[Model]]:
    """Class decorator that adds a network to the list and sets its `architecture`.

    Args:
        name: Short, lower-case name, as in `segmodels train fcn` and `fcn-camvid`.

    Raises:
        ValueError: If the name or the class name is already registered.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(
            f"the name of an architecture must be lower-case letters and digits, got {name!r}"
        )

    def register(model_class: type[Model]) -> type[Model]:
        for taken, other in _MODEL_CLASSES.items():
            if taken == name or other.__name__ == model_class.__name__:
                raise ValueError(
                    f"{name!r} ({model_class.__name__}) cannot be registered: the name belongs to "
                    f"{other.__module__}.{other.__name__} ({taken!r})"
                )
        model_class.architecture = name
        _MODEL_CLASSES[name] = model_class
        return model_class

    return register


def unregister_model(name: str) -> None:
    """Remove a network from the list, for tests and interactive redefinition."""
    del _MODEL_CLASSES[name]


def model_classes() -> list[type["SegmentationModel"]]:
    """All registered networks, in order of publication."""
    return sorted(_MODEL_CLASSES.values(), key=lambda one: (one.paper.published, one.architecture))


def architectures() -> list[str]:
    """The short names of all registered networks, in order of publication.

    Examples:
        >>> architectures()
        ['fcn', 'unet', 'segnet']
    """
    return [model_class.architecture for model_class in model_classes()]


def model_class(name: str) -> type["SegmentationModel"]:
    """The network registered under a short name.

    Raises:
        ValueError: If there is none; the message lists the available names.

    Examples:
        >>> model_class("unet").__name__
        'UNet'
    """
    try:
        return _MODEL_CLASSES[name]
    except KeyError:
        known = ", ".join(architectures())
        raise ValueError(f"there is no network {name!r}: choose one of {known}") from None
