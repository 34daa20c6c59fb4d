"""The one list of architectures.

A further network is one file, whose class is registered under a short name, and one import of that
file in `segmodels/models/__init__.py` (or anywhere, for a network of one's own):

    @register_model("toy")
    class Toy(SegmentationModel):
        display_name = "Toy"
        paper = Paper("Doe", "2026-01", "https://example.org")

What callers ask of a network (its title, tile context, learning rates, ...) are members of
`SegmentationModel`; nothing else in the package enumerates the networks.
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
        ValueError: If the name, or the name of the class, belongs to another network.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"an architecture's name is lower-case letters and digits, got {name!r}")

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
    """Remove a network from the list, for tests and for replacing one interactively."""
    del _MODEL_CLASSES[name]


def model_classes() -> list[type["SegmentationModel"]]:
    """Every registered network, in the order of publication."""
    return sorted(_MODEL_CLASSES.values(), key=lambda one: (one.paper.published, one.architecture))


def architectures() -> list[str]:
    """The short names of the registered networks, in the order of publication.

    Examples:
        >>> architectures()
        ['fcn', 'unet', 'segnet']
    """
    return [model_class.architecture for model_class in model_classes()]


def model_class(name: str) -> type["SegmentationModel"]:
    """The network registered under a short name.

    Raises:
        ValueError: If there is none; the message lists the names there are.

    Examples:
        >>> model_class("unet").__name__
        'UNet'
    """
    try:
        return _MODEL_CLASSES[name]
    except KeyError:
        known = ", ".join(architectures())
        raise ValueError(f"there is no network {name!r}: choose one of {known}") from None
