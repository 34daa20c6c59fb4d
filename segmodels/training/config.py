"""The options of a training that determine its result."""

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
# Options that are passed to the constructor of the network.
ARCHITECTURE = (
    *("in_channels", "dropout", "stride", "head_channels", "reference_padding", "at_once"),
    *("encoder", "base_channels", "padding", "batch_norm", "variant"),
)
SGD_FACTOR = 10  # ratio of the default learning rates of SGD and AdamW


class TrainingError(RuntimeError):
    """Training cannot start or continue. The message says why, and what to do."""


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
        group: Heading in `--help`.
        default: Default value, or MISSING.
        help: Help text.
        unset: Description of the value if None.
        metavar: As in argparse.
        choices: As in argparse.
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

    Each field is documented in its metadata (`dataclasses.fields`) and in `segmodels train --help`.
    None stands for a default that depends on the network, on `start` or on the dataset; the actual
    value is stored in `training.json`.

    Raises:
        ValueError: If a value is out of range.

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
        "fine-tune this trained network: a folder or a Hub id. Classes are matched by name; its "
        "architecture and working size are kept unless overridden by options",
        unset="none: train from scratch or from --vgg16",
    )
    frozen: int = _data(
        4,
        "number of convolutions of a pretrained VGG16 encoder (--vgg16, --start) to freeze, 0 to "
        "13",
    )

    epochs: int | None = _length(
        None,
        "passes over the training images",
        unset="as many as 1,500 steps require, but 10 to 300",
    )
    steps: int | None = _length(
        None, "training steps, instead of --epochs", unset="given by --epochs"
    )
    half_size_epochs: int = _length(
        0,
        "number of epochs, at the start, at half the image and crop size, at a quarter of the cost",
    )
    batch_size: int | None = _length(
        None, "images per step, at most the size of the training split", unset="8"
    )
    patience: int = _length(
        0,
        "early stopping: number of validations without an improvement of val mean IoU (see "
        "--validate-every); 0: off",
    )
    seed: int = _length(0, "random seed")
    precision: str = _optimization(
        "bf16",
        "precision of the computation; on the command line, the default is that of `accelerate "
        "launch`, or fp32 if bf16 is not faster on this processor",
        choices=PRECISIONS,
    )

    val_fraction: float = _data(
        0.0,
        "fraction of the training images to hold out for validation, for datasets without a split "
        "`val`; 0: none",
    )
    folds: int | None = _data(None, "cross-validation: number of folds", unset="none")
    fold: int | None = _data(
        None, "cross-validation: the fold to validate on, 0 to folds - 1", unset="none"
    )
    working_size: int | None = _data(
        None,
        "longer side, in pixels, that images are resized to",
        unset="that of --start, or the images' own size",
    )

    in_channels: int | None = _network(
        None,
        "1 trains in greyscale, 3 in RGB; other numbers require images with as many channels: "
        "multispectral TIFF or .npy",
        unset="3, or those of --start",
    )
    image_mean: tuple[float, ...] | None = _network(
        None,
        "mean of each channel for pixels in [0, 1], subtracted from the images",
        unset="that of --start or --vgg16; else of ImageNet for 3 channels, 0.5 for 1, and of the "
        "training images for other numbers",
        metavar="MEAN",
    )
    image_std: tuple[float, ...] | None = _network(
        None,
        "standard deviation of each channel, by which the images are divided",
        unset="as for --image-mean, 0.25 for 1 channel",
        metavar="STD",
    )
    dropout: float | None = _network(
        None,
        "dropout rate: after FCN's fc6 and fc7, at the end of U-Net's contracting path, in the "
        "deeper half of Bayesian SegNet",
        unset="that of --start, else 0.5 for FCN and 0 for the others",
    )
    stride: int | None = _network(
        None, "FCN: 32, 16 or 8, the finest prediction stride", unset="8, or that of --start"
    )
    head_channels: int | None = _network(
        None, "FCN: width of fc6 and fc7, 4096 in the paper", unset="512, or that of --start"
    )
    reference_padding: bool | None = _network(
        None, "FCN: the authors' geometry, with conv1_1 padded by 100 pixels", unset="no"
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
        "U-Net: same, or valid for the paper's unpadded convolutions; --crop is then the size of "
        "the input, and the loss is computed on its central part",
        unset="same",
        choices=("same", "valid"),
    )
    batch_norm: bool | None = _network(None, "U-Net: use batch normalisation", unset="yes")
    freeze_batch_norm: bool = _network(
        False,
        "normalise with the running statistics of --start during training as well, for datasets so "
        "heterogeneous that the statistics of small batches vary strongly",
    )
    variant: str | None = _network(
        None, "SegNet: vgg16, or basic", unset="vgg16", choices=("vgg16", "basic")
    )

    optimizer: str = _optimization("adamw", "optimizer", choices=OPTIMIZERS)
    momentum: float = _optimization(0.9, "momentum of sgd")
    encoder_lr: float | None = _optimization(
        None,
        "peak learning rate of a pretrained VGG16 encoder (--vgg16, --start)",
        unset="fcn 1e-4, unet and segnet 2e-4; ten times that with sgd",
    )
    decoder_lr: float | None = _optimization(
        None,
        "peak learning rate of all other layers",
        unset="fcn 3e-4, unet and segnet 1e-3; ten times that with sgd",
    )
    bias_lr_factor: float = _optimization(
        1.0, "factor on the learning rate of biases; 2 in the FCN paper"
    )
    skip_rates: tuple[float, float] = _optimization(
        (3.0, 100.0),
        "FCN with --at-once: factors on --decoder-lr for score_pool4 and score_pool3, since "
        "AdamW's steps, unlike those of SGD, do not depend on the scale of the skips",
        metavar=("POOL4", "POOL3"),
    )
    schedule: str = _optimization(
        "poly",
        "learning rate schedule. poly: linear warm-up, then (1 - step / steps)^0.9; onecycle: "
        "torch's OneCycleLR; constant: warm-up only",
        choices=SCHEDULES,
    )
    warmup_steps: int = _optimization(50, "warm-up steps of poly and constant")
    weight_decay: float = _optimization(1e-4, "weight decay, on kernels only")
    ema: float = _optimization(
        0.0,
        "decay of an exponential moving average of the weights, such as 0.999; the average is then "
        "validated and saved; 0: off",
    )

    balance: float = _loss(
        0.5, "exponent of the median-frequency class weights; 1: as in SegNet, 0: none"
    )
    lovasz: float = _loss(0.0, "weight of the Lovász-softmax loss, in addition to cross entropy")
    border_weight: float = _loss(
        0.0, "U-Net's w0: weight of the background between neighbouring cells, 10 in the paper"
    )
    border_sigma: float = _loss(5.0, "U-Net's sigma, in pixels")

    crop: tuple[int, int] | None = _augmentation(
        None,
        "size of training crops; 0 0: whole images, which must have the same size unless the batch "
        "size is 1",
        unset="256 x 320 or smaller, depending on the images; 572 x 572 with --padding valid",
        metavar=("HEIGHT", "WIDTH"),
    )
    zoom: tuple[float, float] = _augmentation(
        (0.7, 1.6), "range of random scale factors; 1 1: off", metavar=("FROM", "TO")
    )
    horizontal_flip: bool = _augmentation(True, "mirror half of the images")
    vertical_flip: bool = _augmentation(False, "flip half of the images upside down")
    quarter_turns: bool = _augmentation(False, "rotate images by a random multiple of 90 degrees")
    rotate: float = _augmentation(
        0.0, "maximum random rotation in degrees, in both directions; at most 180"
    )
    elastic: float = _augmentation(
        0.0, "standard deviation of U-Net's elastic deformation, in pixels; 10 in the paper, 0: off"
    )
    color_strength: float = _augmentation(
        1.0,
        "strength of random changes of brightness, contrast, saturation and gamma, 0 (off) to 2.5",
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
            "freeze_batch_norm requires start, whose statistics it keeps": (
                not self.freeze_batch_norm or self.start is not None
            ),
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
            "skip_rates must be two positive numbers, for pool4 and pool3": (
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
        """The options as JSON-compatible values; paths are reduced to their last component."""
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
    """Choose default options that depend on the size of the dataset.

    Args:
        config: The options; batch_size, epochs and crop may be None.
        image_sizes: (width, height) of every training image.

    Returns:
        The config with these options set, and notes for the user about changes.
    """
    notes: list[str] = []
    batch_size = min(config.batch_size or 8, len(image_sizes))
    if config.batch_size and batch_size < config.batch_size:
        notes.append(
            f"using batches of {batch_size} instead of {config.batch_size}: the training split has "
            "no more images"
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
            f"the crop of {crop[0]} x {crop[1]} (height x width) is larger than most images "
            f"({height} x {width}), which are enlarged to fill it; --crop {min(crop[0], height)} "
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


def _default_side(maximum: int, side: int) -> int:
    """The default crop size along a side of the images: a multiple of 32, the coarsest stride of
    the networks, if the images are large enough."""
    return min(maximum, side // 32 * 32) or side
