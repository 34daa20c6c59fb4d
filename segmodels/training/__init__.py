"""Training: from a dataset to a model folder that `from_pretrained` loads.

    from segmodels.training import TrainingConfig, train

    train(TrainingConfig(network="unet", data="DIR", epochs=20), out="my-unet")

`open_dataset`, `evaluate`, the losses and the metrics can be used in a custom training loop; see
`examples/train_own_loop.py`. Dependencies of the extra `train` (accelerate, kornia, matplotlib,
scipy) are imported only when a name that needs them is accessed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.presets import PRESETS, config_from_preset

if TYPE_CHECKING:
    from segmodels.data.dataset import open_data as open_dataset
    from segmodels.evaluation import metrics
    from segmodels.evaluation.evaluator import evaluate
    from segmodels.training.dataloader import AugmentedData
    from segmodels.training.losses import (
        border_weights,
        class_weights,
        lovasz_softmax,
        weighted_cross_entropy,
    )
    from segmodels.training.runner import train

__all__ = [
    "PRESETS",
    "AugmentedData",
    "TrainingConfig",
    "TrainingError",
    "border_weights",
    "class_weights",
    "config_from_preset",
    "evaluate",
    "lovasz_softmax",
    "metrics",
    "open_dataset",
    "train",
    "weighted_cross_entropy",
]

_LOSSES = "segmodels.training.losses"
_MODULES = {  # modules of the names that are imported on first access
    "AugmentedData": "segmodels.training.dataloader",
    "border_weights": _LOSSES,
    "class_weights": _LOSSES,
    "evaluate": "segmodels.evaluation.evaluator",
    "lovasz_softmax": _LOSSES,
    "train": "segmodels.training.runner",
    "weighted_cross_entropy": _LOSSES,
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("segmodels.evaluation.metrics")
    if name == "open_dataset":
        return import_module("segmodels.data.dataset").open_data
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
