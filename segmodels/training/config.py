"""What is trained, and how: everything that decides the result of a training."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.download import fetch
from segmodels.hub.filenames import START_TRAINING, TRAINING_NAME
from segmodels.inference.optimize import PRECISIONS
from segmodels.models._config import constructor_arguments
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.fcn import FCN
from segmodels.models.segnet import SegNet
from segmodels.models.unet import UNet
from segmodels.models.vgg16 import load_vgg16
from segmodels.utils.files import write_text

NETWORKS = ("fcn", "unet", "segnet")
SCHEDULES = ("poly", "onecycle")
PAIRS = ("crop", "zoom", "skip_rates")  # the config's tuples, lists in JSON
# Of the encoder and of the decoder. FCN's heads start at zero on VGG16's own activations; the
# decoders of the others learn from nothing, behind batch norms, which bear larger steps.
LEARNING_RATES = {"fcn": (1e-4, 3e-4), "unet": (2e-4, 1e-3), "segnet": (2e-4, 1e-3)}


class TrainingError(RuntimeError):
    """Training cannot go on: why, and what to do."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the result of a training.

    network: "fcn", "unet" or "segnet".
    data: the data set's folder, see `data.open_data`.
    vgg16: weights for the encoder, see `vgg16.load_vgg16`; None: from `start`, or from nothing.
    start: a trained network of that kind to go on from (fine-tuning), a folder or a Hub id, see
        `started_network`; None: none.
    epochs, half_size_epochs: passes over the training pictures, and how many of them, at the
        beginning, with pictures and crops of half the size, four times cheaper.
    crop: (height, width) in pixels; zoom: range of the pictures' enlargement.
    working_size: the longer side that pictures are scaled to; None: as they are, or, in `train`,
        that of `start`.
    encoder_lr, decoder_lr: peak learning rates of AdamW, the first for a VGG16 encoder that has
        learnt before, by `vgg16` or `start`. None: the network's own, see LEARNING_RATES.
    skip_rates: factors on `decoder_lr` for FCN's score_pool4 and score_pool3, where its skips are
        scaled (`FCN.at_once`). Adam's steps do not grow with what a layer sees, as SGD's do, and
        after the scaling score_pool4 sees values of 3.4 and score_pool3 of 0.07 (root mean square
        over CamVid), score_fr of 11: at one rate for all the finest skip would learn next to
        nothing.
    schedule: of the learning rates, see `learning_rate_factor`; warmup_steps: of "poly".
    ema: decay of the exponential moving average of the weights, which is then what is measured and
        kept; 0: none.
    precision: of the networks' arithmetic in training, "bf16", "fp16" (GPUs only) or "fp32".
    color_strength: of the changes of colour, 0 (none) to 2.5; degrade: probability of each of
        blur, noise and shadow; elastic: of U-Net's elastic deformation, the standard deviation in
        pixels; see `augment.augment`.
    frozen: convolutions of the VGG16 encoder that stay as they are; 4 are its first two blocks.
    balance: exponent of the median-frequency class weights; 1 is SegNet's, 0 none.
    lovasz: weight of the Lovász-softmax loss beside the cross entropy, see
        `losses.lovasz_softmax`; 0: none.
    border_weight, border_sigma: w0 and sigma, in pixels, of U-Net's border weights, see
        `losses.border_weights`; the paper's are 10 and 5, border_weight 0 is none.
    stride, head_channels: of the FCN; base_channels: of the plain U-Net; variant: of the SegNet;
        with `start` they are that network's instead.
    dropout: of the network; None: its own default, or that of `start`.

    ValueError, on construction, for a value that cannot be.
    """

    network: str
    data: str
    vgg16: str | None = None
    epochs: int = 30
    half_size_epochs: int = 0
    batch_size: int = 8
    crop: tuple[int, int] = (256, 320)
    zoom: tuple[float, float] = (0.7, 1.6)
    working_size: int | None = None
    encoder_lr: float | None = None
    decoder_lr: float | None = None
    skip_rates: tuple[float, float] = (3.0, 100.0)
    weight_decay: float = 1e-4
    warmup_steps: int = 50
    frozen: int = 4
    balance: float = 0.5
    stride: int = 8
    head_channels: int = 512
    base_channels: int = 64
    variant: str = "vgg16"
    dropout: float | None = None
    seed: int = 0
    schedule: str = "poly"
    ema: float = 0.0
    precision: str = "bf16"
    color_strength: float = 1.0
    degrade: float = 0.0
    elastic: float = 0.0
    border_weight: float = 0.0
    border_sigma: float = 5.0
    lovasz: float = 0.0
    start: str | None = None

    def __post_init__(self) -> None:
        for key in PAIRS:  # lists, from JSON or a command line
            object.__setattr__(self, key, tuple(getattr(self, key)))
        encoder_lr, decoder_lr = LEARNING_RATES.get(self.network, (None, None))
        object.__setattr__(self, "encoder_lr", self.encoder_lr or encoder_lr)
        object.__setattr__(self, "decoder_lr", self.decoder_lr or decoder_lr)
        self._check()

    def _check(self) -> None:
        checks = {
            f"network must be one of {', '.join(NETWORKS)}": self.network in NETWORKS,
            "epochs must be at least 1": self.epochs >= 1,
            "half_size_epochs must be from 0 to epochs": 0 <= self.half_size_epochs <= self.epochs,
            "batch_size must be at least 1": self.batch_size >= 1,
            "crop must be (height, width), both at least 2": (
                len(self.crop) == 2 and min(self.crop) >= 2
            ),
            "zoom must be (from, to) with 0 < from <= to": (
                len(self.zoom) == 2 and 0 < self.zoom[0] <= self.zoom[1]
            ),
            "working_size must be None or at least 2": (
                self.working_size is None or self.working_size >= 2
            ),
            "frozen must be from 0 to 13": 0 <= self.frozen <= 13,
            "encoder_lr must be positive": (self.encoder_lr or 0) > 0,
            "decoder_lr must be positive": (self.decoder_lr or 0) > 0,
            "skip_rates must be (of pool4, of pool3), both positive": (
                len(self.skip_rates) == 2 and min(self.skip_rates) > 0
            ),
            "seed must be 0 or more": self.seed >= 0,
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
            "ema must be at least 0 and less than 1": 0 <= self.ema < 1,
            f"precision must be one of {', '.join(PRECISIONS)}": self.precision in PRECISIONS,
            "color_strength must be from 0 to 2.5": 0 <= self.color_strength <= 2.5,
            "degrade must be from 0 to 1": 0 <= self.degrade <= 1,
            "elastic must be 0 or more": self.elastic >= 0,
            "border_weight must be 0 or more": self.border_weight >= 0,
            "border_sigma must be positive": self.border_sigma > 0,
            "lovasz must be 0 or more": self.lovasz >= 0,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ValueError(f"{rule}, got {getattr(self, rule.split()[0])!r}")

    def learning_rate_factor(self, step: int, total_steps: int) -> float:
        """Of the peak, for step 0 .. total_steps - 1. "poly": a linear rise over `warmup_steps`,
        times (1 - step / total_steps)^0.9. "onecycle": cosines from 1/25 up to the peak over the
        first 30 % and down to 1/250,000 (Smith and Topin, 2018, as torch's OneCycleLR has it)."""
        if self.schedule == "poly":
            rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return rise * (1 - step / total_steps) ** 0.9
        peak = 0.3 * total_steps - 1
        if step < peak:
            return _cosine(1 / 25, 1.0, step / peak)
        return _cosine(1.0, 1 / 250_000, (step - peak) / (total_steps - 1 - peak))

    def published(self) -> dict[str, Any]:
        """The config as JSON-able values, without the folders of the machine that it ran on."""
        pairs = {key: [*getattr(self, key)] for key in PAIRS}
        names = {"data": Path(self.data).resolve().name} | pairs
        for key, source in (("vgg16", self.vgg16), ("start", self.start)):
            if source and Path(source).exists():
                names[key] = Path(source).resolve().name
        return asdict(self) | names


def settled(config: TrainingConfig) -> TrainingConfig:
    """The config with the working size of `start`, if it names none. CheckpointError for a start
    that cannot be had."""
    if not config.start or config.working_size is not None:
        return config
    return replace(config, working_size=load_model(config.start).working_size)


def record_of(source: str) -> dict[str, Any] | None:
    """The `training.json` of a folder or a Hub repository, if it has one that can be read."""
    try:
        record = json.loads(fetch(source, TRAINING_NAME).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_config(folder: Path) -> TrainingConfig:
    """The config in the folder's `training.json`. OSError, ValueError or TypeError if there is
    none."""
    record = json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8"))
    return TrainingConfig(**{key: value for key, value in record.items() if key != START_TRAINING})


def write_record(folder: Path, config: TrainingConfig, before: dict[str, Any] | None) -> None:
    """Write `training.json`: the config and, under START_TRAINING, the record of the
    training that it started from, so that the way from the first step on is known."""
    record = config.published() | ({START_TRAINING: before} if before else {})
    write_text(folder / TRAINING_NAME, json.dumps(record, indent=2) + "\n")


def check_same(theirs: TrainingConfig, ours: TrainingConfig, what: str) -> None:
    """TrainingError, which begins with `what`, if the configs differ in what is published."""
    old, new = theirs.published(), ours.published()
    changed = [f"{key} {old[key]!r}, now {new[key]!r}" for key in new if old[key] != new[key]]
    if changed:
        raise TrainingError(
            f"{what} a training with other options ({'; '.join(changed)}): give the same ones "
            "again, or another --out to begin anew"
        )


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def build_network(config: TrainingConfig, class_names: list[str]) -> SegmentationModel:
    """The config's network, with the weights it starts from, if any. Sets torch's random seed.

    TrainingError if `start` is another kind of network, CheckpointError for weights that cannot be
    had."""
    common: dict[str, Any] = {"class_names": class_names, "working_size": config.working_size}
    if config.dropout is not None:
        common["dropout"] = config.dropout
    torch.manual_seed(config.seed)
    model: SegmentationModel
    if config.start:
        model = started_network(config.start, config.network, common)
    elif config.network == "fcn":
        model = FCN(stride=config.stride, head_channels=config.head_channels, **common)
    elif config.network == "unet":
        encoder = "vgg16" if config.vgg16 else "plain"
        model = UNet(encoder=encoder, base_channels=config.base_channels, **common)
    else:
        model = SegNet(variant=config.variant, **common)
    if isinstance(model, FCN):
        last = {32: "upscore", 16: "upscore16", 8: "upscore8"}[model.stride]
        getattr(model, last).requires_grad_(False)  # bilinear, as the paper has it (section 4.3)
    if config.vgg16:
        load_vgg16(model, config.vgg16)
    return model


def started_network(start: str, network: str, changed: dict[str, Any]) -> SegmentationModel:
    """The network of the folder or Hub repository `start` with the arguments `changed`, and all its
    weights that have the same shape: where the number of classes changes, the layers with one
    channel a class begin anew. TrainingError if it is no `network`."""
    old = load_model(start)
    kind = type(old)
    if kind.__name__.lower() != network:
        raise TrainingError(
            f"{start} holds a {kind.__name__}, and the network to train is {network}: choose "
            f"`segmodels train {kind.__name__.lower()}`, or another --start"
        )
    arguments = {name: getattr(old, name) for name in constructor_arguments(kind)} | changed
    if old.class_names != changed["class_names"]:
        arguments["palette"] = None
    model = kind(**arguments)
    learnt, fresh = old.state_dict(), model.state_dict()
    taken = {name: learnt[name] for name in fresh if learnt[name].shape == fresh[name].shape}
    model.load_state_dict(taken, strict=False)
    return model
