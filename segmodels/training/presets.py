"""Presets: the training settings of the papers, and starting points for two kinds of data.

Explicit options override those of a preset: `segmodels train --preset paper-unet --epochs 20`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segmodels.training.config import TrainingConfig

# The papers do not use these augmentations.
_NO_AUGMENTATION = {"zoom": (1.0, 1.0), "horizontal_flip": False, "color_strength": 0.0}


@dataclass(frozen=True)
class Preset:
    """A named set of options.

    Attributes:
        network: Architecture that it is for; None: any.
        about: Description, for `--help` and the documentation.
        options: Fields of `TrainingConfig`.
    """

    network: str | None
    about: str
    options: Mapping[str, Any]


PRESETS = {
    "paper-fcn8s": Preset(
        "fcn",
        "FCN-8s as trained by Long et al.: whole images with a batch size of 1, the authors' "
        "padding, fc6 and fc7 with 4096 channels, SGD with momentum 0.99, twice the learning rate "
        "for biases. Train in stages as in section 4.3: first --stride 32 with --vgg16, then "
        "--stride 16 with --start and a hundredth of the learning rate, then --stride 8 in the "
        "same way",
        {
            "stride": 8,
            "head_channels": 4096,
            "dropout": 0.5,
            "reference_padding": True,
            "at_once": False,
            "frozen": 0,
            "optimizer": "sgd",
            "momentum": 0.99,
            "batch_size": 1,
            # The authors' 1e-10 is for a loss summed over the pixels of a VOC image, 500 x 375.
            "encoder_lr": 2e-5,
            "decoder_lr": 2e-5,
            "bias_lr_factor": 2.0,
            "weight_decay": 5e-4,
            "schedule": "constant",
            "warmup_steps": 0,
            "balance": 0.0,
            "crop": (0, 0),
            **_NO_AUGMENTATION,
        },
    ),
    "paper-unet": Preset(
        "unet",
        "U-Net as trained by Ronneberger et al.: greyscale tiles of 572 x 572 with a batch size "
        "of 1, unpadded convolutions, no batch norm, dropout at the end of the contracting path, "
        "border weights, elastic deformation and rotation, SGD with momentum 0.99. The paper does "
        "not state the learning rate and the number of steps",
        {
            "in_channels": 1,
            "encoder": "plain",
            "base_channels": 64,
            "padding": "valid",
            "batch_norm": False,
            "dropout": 0.5,
            "optimizer": "sgd",
            "momentum": 0.99,
            "batch_size": 1,
            "encoder_lr": 1e-4,
            "decoder_lr": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "warmup_steps": 100,
            "balance": 1.0,
            "border_weight": 10.0,
            "border_sigma": 5.0,
            "crop": (572, 572),
            **_NO_AUGMENTATION,
            "rotate": 180.0,
            "elastic": 10.0,
            "color_strength": 0.5,
        },
    ),
    "paper-segnet": Preset(
        "segnet",
        "SegNet as trained by Badrinarayanan et al.: whole images in batches of 12, "
        "median-frequency balancing, SGD with learning rate 0.1 and momentum 0.9. Use with "
        "--vgg16; add --dropout 0.5 for Bayesian SegNet or --variant basic for SegNet-Basic",
        {
            "dropout": 0.0,
            "frozen": 0,
            "optimizer": "sgd",
            "momentum": 0.9,
            "batch_size": 12,
            "encoder_lr": 0.1,
            "decoder_lr": 0.1,
            "weight_decay": 5e-4,
            "schedule": "constant",
            "warmup_steps": 0,
            "balance": 1.0,
            "crop": (0, 0),
            **_NO_AUGMENTATION,
        },
    ),
    "road": Preset(
        None,
        "street scenes: moderate colour augmentation, no vertical flips or rotations, the "
        "Lovász-softmax loss for thin classes, an exponential moving average of the weights",
        {
            "balance": 0.25,
            "lovasz": 1.0,
            "ema": 0.998,
            "color_strength": 0.6,
            "zoom": (0.7, 1.6),
        },
    ),
    "microscopy": Preset(
        "unet",
        "cells and tissue, without a preferred orientation: all flips and 90-degree rotations, "
        "small rotations, elastic deformation, border weights between cells",
        {
            "ema": 0.99,
            "border_weight": 10.0,
            "zoom": (0.8, 1.25),
            "vertical_flip": True,
            "quarter_turns": True,
            "rotate": 15.0,
            "elastic": 10.0,
            "color_strength": 0.5,
        },
    ),
}


def config_from_preset(
    preset: str, *, data: str, network: str | None = None, **options: Any
) -> TrainingConfig:
    """Create the config of a preset.

    Args:
        preset: A key of `PRESETS`.
        data: Folder of the dataset.
        network: Required if the preset is for any network.
        options: Fields of `TrainingConfig` that override the preset.

    Raises:
        ValueError: If the preset does not exist or is for another network.

    Examples:
        >>> config_from_preset("paper-unet", data="DIR", steps=2000).padding
        'valid'
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    network = network or chosen.network
    if network is None:
        raise ValueError(f"the preset {preset} works with any network: specify one, such as unet")
    if chosen.network not in (None, network):
        raise ValueError(f"the preset {preset} is for {chosen.network}, not for {network}")
    return TrainingConfig(network, data, **{**chosen.options, **options})
