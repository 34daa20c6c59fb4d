"""The options of a training: everything that decides its result."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from segmodels.inference.optimize import PRECISIONS
from segmodels.models.registry import architectures, model_class

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("poly", "onecycle", "constant")
# Tuples in Python, lists in JSON.
TUPLES = ("crop", "zoom", "skip_rates", "image_mean", "image_std")
# The options that become arguments of the network's constructor.
ARCHITECTURE = (
    *("in_channels", "dropout", "stride", "head_channels", "reference_padding", "at_once"),
    *("encoder", "base_channels", "padding", "batch_norm", "variant"),
)
SGD_FACTOR = 10  # of SGD's default learning rates over AdamW's


class TrainingError(RuntimeError):
    """Training cannot go on: why, and what to do."""


def _option(
    group: str,
    default: Any,
    help: str,
    *,
    unset: str = "",
    metavar: str | Sequence[str] | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """A field that is also an option of `segmodels train`.

    Args:
        group: its heading in `--help`.
        default: its value, MISSING for none.
        help: what it is.
        unset: what None stands for.
        metavar: of argparse.
        choices: of argparse.
    """
    texts = {"group": group, "help": help, "unset": unset, "metavar": metavar}
    texts["choices"] = None if choices is None else tuple(choices)
    return field(default=default, metadata=texts)


_data = partial(_option, "data and start")
_length = partial(_option, "length")
_network = partial(_option, "network")
_optimization = partial(_option, "optimization")
_loss = partial(_option, "loss")
_augmentation = partial(_option, "augmentation")


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a training, the same as those of `segmodels train`.

    Each field's help text is in its metadata (`dataclasses.fields`) and in
    `segmodels train --help`. None stands for a default that depends on the network, on `start` or
    on the size of the dataset; what it came to is in `training.json`.

    Raises:
        ValueError: for a value out of its range, or an option that the network does not have.

    Examples:
        >>> config = TrainingConfig(network="unet", data="DIR", epochs=5, crop=(128, 128))
        >>> config.decoder_lr
        0.001
    """

    network: str = _data(MISSING, "fcn, unet or segnet")
    data: str = _data(MISSING, "folder of the dataset, see `segmodels data check --help`")

    vgg16: str | None = _data(
        None,
        "ImageNet weights of VGG16 for the encoder: a safetensors file, a folder or a Hub id",
        unset="none",
    )
    start: str | None = _data(
        None,
        "fine-tune this trained network: a folder or a Hub id. Classes are carried over by name; "
        "its architecture and working size are kept unless options change them",
        unset="train from scratch or from --vgg16",
    )
    frozen: int = _data(
        4,
        "convolutions of a VGG16 encoder from --vgg16 or --start that stay as they are, 0 to 13",
    )

    epochs: int | None = _length(
        None,
        "passes over the training images",
        unset="as many as make 1,500 steps, from 10 to 300",
    )
    steps: int | None = _length(None, "training steps, in place of --epochs", unset="by --epochs")
    half_size_epochs: int = _length(
        0, "of the epochs, the first so many at half the image and crop size, four times cheaper"
    )
    batch_size: int | None = _length(
        None, "images a step, at most those of the training split", unset="8"
    )
    patience: int = _length(
        0,
        "stop early when val mean IoU has not improved for so many validations (see "
        "--validate-every); 0: never",
    )
    seed: int = _length(0, "of every random draw")
    precision: str = _optimization(
        "bf16",
        "of the arithmetic; on the command line by default that of `accelerate launch`, or fp32 "
        "where the processor is no faster in bf16",
        choices=PRECISIONS,
    )

    val_fraction: float = _data(
        0.0,
        "share of the training images to hold out for validation, for a dataset without a split "
        "`val`; 0: none",
    )
    folds: int | None = _data(None, "cross-validation: number of folds", unset="none")
    fold: int | None = _data(
        None, "cross-validation: the fold to validate on, 0 to folds - 1", unset="none"
    )
    working_size: int | None = _data(
        None,
        "pixels of the longer side that images are resized to",
        unset="that of --start, or the images' own size",
    )

    in_channels: int | None = _network(
        None,
        "1 trains in grey, 3 in RGB, any other number takes images of so many channels: "
        "multispectral TIFF or .npy",
        unset="3, or those of --start",
    )
    image_mean: tuple[float, ...] | None = _network(
        None,
        "mean of each channel in [0, 1], which is subtracted from the images",
        unset="that of --start or --vgg16; else ImageNet's for 3 channels, 0.5 for 1, and for "
        "other numbers that of the training images",
        metavar="MEAN",
    )
    image_std: tuple[float, ...] | None = _network(
        None, "standard deviation likewise, which divides them", unset="likewise", metavar="STD"
    )
    dropout: float | None = _network(
        None,
        "rate, where the paper has it: after FCN's fc6 and fc7, at the end of U-Net's contracting "
        "path, in the deeper half of Bayesian SegNet",
        unset="0.5 for FCN, else 0, or that of --start",
    )
    stride: int | None = _network(
        None, "FCN: 32, 16 or 8, the finest prediction stride", unset="8, or that of --start"
    )
    head_channels: int | None = _network(
        None, "FCN: width of fc6 and fc7, 4096 in the paper", unset="512, or that of --start"
    )
    reference_padding: bool | None = _network(
        None, "FCN: the authors' geometry, conv1_1 padded by 100 pixels", unset="no"
    )
    at_once: bool | None = _network(
        None, "FCN: scale the skips for all-at-once training", unset="yes, or as in --start"
    )
    encoder: str | None = _network(
        None,
        "U-Net: plain, or VGG16's 13 convolutions",
        unset="vgg16 with --vgg16, else plain",
        choices=("plain", "vgg16"),
    )
    base_channels: int | None = _network(
        None, "U-Net: channels of the plain encoder's first level", unset="64"
    )
    padding: str | None = _network(
        None,
        "U-Net: same, or valid for the paper's unpadded convolutions: --crop is then the input "
        "tile, and the loss is on its central part",
        unset="same",
        choices=("same", "valid"),
    )
    batch_norm: bool | None = _network(None, "U-Net: batch normalisation", unset="yes")
    variant: str | None = _network(
        None, "SegNet: vgg16, or basic", unset="vgg16", choices=("vgg16", "basic")
    )

    optimizer: str = _optimization("adamw", "of the weights", choices=OPTIMIZERS)
    momentum: float = _optimization(0.9, "of sgd")
    encoder_lr: float | None = _optimization(
        None,
        "peak learning rate of a VGG16 encoder from --vgg16 or --start",
        unset="the network's own: fcn 1e-4, unet and segnet 2e-4; with sgd ten times that",
    )
    decoder_lr: float | None = _optimization(
        None,
        "peak learning rate of the rest",
        unset="the network's own: fcn 3e-4, unet and segnet 1e-3; with sgd ten times that",
    )
    bias_lr_factor: float = _optimization(
        1.0, "learning rate of biases over that of kernels; FCN: 2"
    )
    skip_rates: tuple[float, float] = _optimization(
        (3.0, 100.0),
        "FCN with --at-once: learning rates of score_pool4 and score_pool3 over --decoder-lr. "
        "AdamW's steps do not grow with a layer's input as SGD's do, and the scaled skips see "
        "small values",
        metavar=("POOL4", "POOL3"),
    )
    schedule: str = _optimization(
        "poly",
        "of the learning rates. poly: linear warm-up, then (1 - step / steps)^0.9; onecycle: "
        "torch's OneCycleLR; constant: warm-up alone",
        choices=SCHEDULES,
    )
    warmup_steps: int = _optimization(50, "of poly and constant")
    weight_decay: float = _optimization(1e-4, "on kernels only, neither on biases nor batch norms")
    ema: float = _optimization(
        0.0,
        "decay of an exponential moving average of the weights, 0.999 for example, which is then "
        "what is measured and kept; 0: none",
    )

    balance: float = _loss(
        0.5, "exponent of the median-frequency class weights; 1: SegNet's, 0: none"
    )
    lovasz: float = _loss(0.0, "weight of the Lovász-softmax loss beside the cross entropy")
    border_weight: float = _loss(
        0.0, "U-Net's w0: weight of the background between neighbouring cells, 10 in the paper"
    )
    border_sigma: float = _loss(5.0, "U-Net's sigma, pixels")

    crop: tuple[int, int] | None = _augmentation(
        None,
        "pixels of the network's input in training; 0 0: whole images, of one size or in batches "
        "of 1",
        unset="256 x 320, no larger than the images; with --padding valid 572 x 572",
        metavar=("HEIGHT", "WIDTH"),
    )
    zoom: tuple[float, float] = _augmentation(
        (0.7, 1.6), "range of the random enlargement; 1 1: none", metavar=("FROM", "TO")
    )
    horizontal_flip: bool = _augmentation(True, "mirror half of the images")
    vertical_flip: bool = _augmentation(False, "flip half of the images upside down")
    quarter_turns: bool = _augmentation(False, "turn images by a multiple of 90 degrees")
    rotate: float = _augmentation(
        0.0, "turn images by up to so many degrees either way, at most 180"
    )
    elastic: float = _augmentation(
        0.0, "U-Net's elastic deformation, standard deviation in pixels, 10 in the paper; 0: none"
    )
    color_strength: float = _augmentation(
        1.0, "of changes of brightness, contrast, saturation and gamma, 0 (none) to 2.5"
    )
    degrade: float = _augmentation(0.0, "probability of each of blur, noise and a shadow")

    def __post_init__(self) -> None:
        for name in TUPLES:  # lists, from JSON or a command line
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if self.network in architectures():
            factor = SGD_FACTOR if self.optimizer == "sgd" else 1
            rates = model_class(self.network).default_learning_rates
            object.__setattr__(self, "encoder_lr", self.encoder_lr or factor * rates[0])
            object.__setattr__(self, "decoder_lr", self.decoder_lr or factor * rates[1])
        self._check()

    def _check(self) -> None:
        low, high = self.zoom if len(self.zoom) == 2 else (1, 0)
        folds = (self.folds, self.fold)
        checks = {
            f"network must be one of {', '.join(architectures())}": (
                self.network in architectures()
            ),
            "epochs must be at least 1": self.epochs is None or self.epochs >= 1,
            "steps must be at least 1": self.steps is None or self.steps >= 1,
            "half_size_epochs must be from 0 to epochs": (
                0 <= self.half_size_epochs <= (self.epochs or self.half_size_epochs)
            ),
            "batch_size must be at least 1": self.batch_size is None or self.batch_size >= 1,
            "patience must be 0 or more": self.patience >= 0,
            "seed must be 0 or more": self.seed >= 0,
            f"precision must be one of {', '.join(PRECISIONS)}": self.precision in PRECISIONS,
            "val_fraction must be at least 0 and less than 1": 0 <= self.val_fraction < 1,
            "folds must be at least 2": self.folds is None or self.folds >= 2,
            "fold must be from 0 to folds - 1, with folds": (
                folds == (None, None) or (None not in folds and 0 <= self.fold < self.folds)  # type: ignore[operator]
            ),
            "working_size must be None or at least 2": (
                self.working_size is None or self.working_size >= 2
            ),
            "image_mean must have as many numbers as image_std": (
                len(self.image_mean or ()) == len(self.image_std or ())
            ),
            "frozen must be from 0 to 13": 0 <= self.frozen <= 13,
            f"optimizer must be one of {', '.join(OPTIMIZERS)}": self.optimizer in OPTIMIZERS,
            "momentum must be at least 0 and less than 1": 0 <= self.momentum < 1,
            "encoder_lr must be positive": (self.encoder_lr or 0) > 0,
            "decoder_lr must be positive": (self.decoder_lr or 0) > 0,
            "bias_lr_factor must be positive": self.bias_lr_factor > 0,
            "skip_rates must be (of pool4, of pool3), both positive": (
                len(self.skip_rates) == 2 and min(self.skip_rates) > 0
            ),
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
            "warmup_steps must be 0 or more": self.warmup_steps >= 0,
            "weight_decay must be 0 or more": self.weight_decay >= 0,
            "ema must be at least 0 and less than 1": 0 <= self.ema < 1,
            "balance must be 0 or more": self.balance >= 0,
            "lovasz must be 0 or more": self.lovasz >= 0,
            "border_weight must be 0 or more": self.border_weight >= 0,
            "border_sigma must be positive": self.border_sigma > 0,
            "crop must be (height, width), both at least 2, or (0, 0)": (
                self.crop is None
                or (len(self.crop) == 2 and (min(self.crop) >= 2 or self.crop == (0, 0)))
            ),
            "zoom must be (from, to) with 0 < from <= to": 0 < low <= high,
            "rotate must be from 0 to 180": 0 <= self.rotate <= 180,
            "elastic must be 0 or more": self.elastic >= 0,
            "color_strength must be from 0 to 2.5": 0 <= self.color_strength <= 2.5,
            "degrade must be from 0 to 1": 0 <= self.degrade <= 1,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ValueError(f"{rule}, got {getattr(self, rule.split()[0])!r}")

    def published(self) -> dict[str, Any]:
        """The options as JSON-able values, without the folders of the machine."""
        values = asdict(self) | {"data": Path(self.data).resolve().name}
        for name in TUPLES:
            values[name] = None if values[name] is None else list(values[name])
        for name in ("vgg16", "start"):
            if values[name] and Path(values[name]).exists():
                values[name] = Path(values[name]).resolve().name
        return values


def fit_to_data(
    config: TrainingConfig, image_sizes: Sequence[tuple[int, int]]
) -> tuple[TrainingConfig, list[str]]:
    """Choose the options that were left to the size of the dataset.

    Args:
        config: options, of which batch_size, epochs and crop may be None.
        image_sizes: (width, height) of every training image.

    Returns:
        The config without None among these, and notes for the user on what was changed.
    """
    notes: list[str] = []
    batch_size = min(config.batch_size or 8, len(image_sizes))
    if config.batch_size and batch_size < config.batch_size:
        notes.append(
            f"batches of {batch_size} in place of {config.batch_size}: the training split has no "
            "more images"
        )
    steps_per_epoch = len(image_sizes) // batch_size
    epochs = config.epochs
    if epochs is None:
        wanted = config.steps or 1500
        epochs = -(-wanted // steps_per_epoch)
        if config.steps is None:
            epochs = min(300, max(10, epochs))
        epochs = max(epochs, config.half_size_epochs)
    height, width = _median_size(config, image_sizes)
    crop = config.crop
    if crop is None:
        crop = (_default_side(256, height), _default_side(320, width))
        if config.padding == "valid":
            crop = (572, 572)
    elif config.padding != "valid" and (crop[0] > height or crop[1] > width):
        notes.append(
            f"the crop of {crop[0]} x {crop[1]} (height x width) is larger than most images, "
            f"{height} x {width}: they are enlarged to fill it; --crop {min(crop[0], height)} "
            f"{min(crop[1], width)} avoids that"
        )
    return replace(config, batch_size=batch_size, epochs=epochs, crop=crop), notes


def _median_size(config: TrainingConfig, image_sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) at the working size."""
    scaled = []
    for width, height in image_sizes:
        scale = (config.working_size or max(width, height)) / max(width, height)
        scaled.append((round(height * scale), round(width * scale)))
    heights, widths = (sorted(sides) for sides in zip(*scaled, strict=True))
    middle = len(scaled) // 2
    return max(2, heights[middle]), max(2, widths[middle])


def _default_side(most: int, side: int) -> int:
    """A multiple of 32, the coarsest stride of the networks, where the images allow it."""
    return min(most, side // 32 * 32) or side
