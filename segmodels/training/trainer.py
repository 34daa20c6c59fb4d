"""State and steps of a training.

All random numbers depend only on the seed and the position in the training. A resumed training
therefore takes the same steps as an uninterrupted one and, except for dropout, a training in
several processes takes the same steps as in a single one.
"""

import copy
import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from segmodels.data.dataset import IGNORE_INDEX, DataError, has_split, hold_out_of
from segmodels.data.diagnosis import likely_errors
from segmodels.data.layouts import notes_of
from segmodels.data.resizing import resize
from segmodels.data.validation import check_splits
from segmodels.evaluation.evaluator import Evaluation, evaluate
from segmodels.inference.optimize import use_winograd
from segmodels.inference.segmenter import Segmenter, normalise
from segmodels.models._config import constructor_arguments
from segmodels.models.base import SegmentationModel
from segmodels.models.layers.winograd import WinogradConv2d
from segmodels.models.vgg16 import calibrate, encoder_layers, has_vgg16_encoder
from segmodels.training.batch_norm import batch_norms, recompute, synchronise
from segmodels.training.config import TrainingConfig, TrainingError, fit_to_data
from segmodels.training.dataloader import (
    AugmentedData,
    BorderCache,
    batch_order,
    batches_from,
    channel_statistics,
    convert_channels,
    crop_of,
    seed_of,
)
from segmodels.training.losses import (
    class_weights,
    lovasz_softmax,
    total_weight,
    weighted_cross_entropy,
)
from segmodels.training.model_factory import build_network
from segmodels.training.optim import PEAK, learning_rate_factors, optimizer_for
from segmodels.utils.distributed import (
    is_main_process,
    process_count,
    process_index,
    shared,
    summed,
    whole_batch,
)

MIN_LOSS_SCALE = 2.0**-10  # for fp16; if gradients still overflow below it, training fails


class Trainer:
    """The state of a training: data, network, optimizer and position.

    Reads every file of the splits "train" and "val" first.

    Args:
        config: The options; those of the network are resolved by `model_factory.resolve_defaults`.
        accelerator: Device and precision of this process.
        border_cache: Folder for cached border weights; None: compute them for each crop.

    Attributes:
        config: The options, all resolved.
        model: The network in training.
        result: The network that is validated and saved: the moving average, if there is one.
        carried_over: What was copied from `config.start`; None without it.
        step: Number of completed steps.
        total_steps: Number of steps of the whole training.
        evaluation: The latest validation; None before the first.
        held_out: Keys of the training images that are held out for validation, see `HoldOut`; None
            if there is a split "val" or no validation.
        notes: Notes for the user about chosen and changed options.

    Raises:
        DataError: If the dataset is invalid; lists all errors.
        TrainingError: If options do not fit the dataset or each other.
    """

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, border_cache: Path | None = None
    ) -> None:
        self.accelerator, self.device = accelerator, accelerator.device
        self.notes: list[str] = []
        frequencies, image_sizes = self._read_data(config)
        self.config, notes = fit_to_data(self._with_statistics(config), image_sizes)
        self.notes += notes
        config = self.config
        self._check_batch()
        assert config.batch_size
        assert config.epochs
        self.steps_per_epoch = len(self.data) // config.batch_size
        self.total_steps = config.steps or config.epochs * self.steps_per_epoch
        self.rate_factors = learning_rate_factors(config, self.total_steps)
        self.step = 0
        self.losses: list[float] = []
        self.best_score, self.best_step, self.validations_since_best = -math.inf, 0, 0
        self.evaluation: Evaluation | None = None
        self.last_record = time.monotonic()
        names = self.data.class_names
        with warnings.catch_warnings():  # absent classes are in the notes already
            warnings.simplefilter("ignore", UserWarning)
            weights = class_weights(frequencies, names, config.balance)
        self.class_weights = weights.to(self.device)
        self.borders = BorderCache(border_cache)
        model, self.carried_over = build_network(config, names)
        if self.carried_over is not None:
            self.notes.append(self.carried_over.describe(cast(str, config.start)))
        self._shapes = copy.deepcopy(model).to("meta").train()
        self._output_sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._check_crops(image_sizes)
        if "minimum_size" in constructor_arguments(type(model)):
            model.minimum_size = self._minimum_size(image_sizes)
        for note in self.notes if is_main_process() else []:
            print(f"segmodels: {note}", file=sys.stderr)
        self._prepare(model)

    def _read_data(
        self, config: TrainingConfig
    ) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[tuple[int, int]]]:
        """Class frequencies and (width, height) of the training images."""
        hold_out = hold_out_of(config.val_fraction, config.folds, config.fold, config.seed)
        has_val = hold_out is not None or has_split(config.data, "val")
        reports = check_splits(config.data, ["train", "val"] if has_val else ["train"], hold_out)
        ignored = [note for report in reports.values() for note in notes_of(report.data.layout)]
        likely = [f"warning: {error}" for error in likely_errors(reports)]
        self.notes += [*dict.fromkeys(ignored), *likely]
        channels = config.in_channels or 3
        self.data = reports["train"].data.with_channels(channels)
        self.val = reports["val"].data.with_channels(channels) if "val" in reports else None
        convert_channels(self.data.image(0), channels)  # raises DataError if they do not match
        self.held_out: list[str] | None = None
        if hold_out is not None and self.val is not None:
            self.held_out = [sample.key for sample in self.val.samples]
            self.notes.append(hold_out.describe([*self.data.samples, *self.val.samples]))
        self.digests = {n: d for report in reports.values() for n, d in report.digests.items()}
        frequencies = reports["train"].frequencies
        if np.isnan(frequencies).all():
            first = self.data.samples[0].label
            sentence = f"all labels, starting with {first}, contain only void pixels"
            raise DataError("\n  ".join([sentence, *likely]))
        return frequencies, list(reports["train"].sizes.elements())

    def _with_statistics(self, config: TrainingConfig) -> TrainingConfig:
        """Set the mean and standard deviation of the training images, for numbers of channels
        without common values."""
        if config.image_mean or config.vgg16 or config.in_channels in (None, 1, 3):
            return config
        mean, std = channel_statistics(self.data)
        return replace(config, image_mean=tuple(mean), image_std=tuple(std))

    def _check_batch(self) -> None:
        config = self.config
        assert config.batch_size
        if config.batch_size < process_count():
            raise TrainingError(
                f"a batch of {config.batch_size} cannot be split among {process_count()} "
                "processes: choose a larger --batch-size, or start fewer processes"
            )
        if config.patience and self.val is None:
            raise TrainingError(
                "early stopping (--patience) needs validation images, and the dataset has no "
                "split `val`: add one, use --val-fraction 0.1, or omit --patience"
            )

    def _check_crops(self, image_sizes: list[tuple[int, int]]) -> None:
        """Raise TrainingError if crops are too small for the network or its batch norms."""
        config = self.config
        if config.crop == (0, 0):
            if len(set(image_sizes)) > 1 and config.batch_size != 1:
                raise TrainingError(
                    "whole images (--crop 0 0) of different sizes do not fit into one batch: "
                    "choose --batch-size 1, or a --crop"
                )
            width, height = image_sizes[0]
        else:
            height, width = cast(tuple[int, int], config.crop)
        for shrink in (1, 2) if config.half_size_epochs else (1,):
            self.output_size(crop_of(config, shrink, (height // shrink, width // shrink)))

    def _minimum_size(self, image_sizes: list[tuple[int, int]]) -> int | None:
        """The network's `minimum_size`, by which images smaller than the crops, which `augment`
        enlarges, are enlarged in inference too."""
        crop = self.config.crop
        if self.config.working_size or crop is None or crop == (0, 0):
            return None
        size = max(self.output_size(crop))
        return size if min(max(image_size) for image_size in image_sizes) < size else None

    def output_size(self, crop: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the logits for an input of this size."""
        if crop not in self._output_sizes:
            batch, channels = cast(int, self.config.batch_size), self._shapes.in_channels
            try:
                with torch.no_grad():
                    logits = self._shapes(torch.empty(batch, channels, *crop, device="meta"))
            except ValueError as error:
                raise self._too_small(error, crop) from error
            self._output_sizes[crop] = (logits.shape[-2], logits.shape[-1])
        return self._output_sizes[crop]

    def _too_small(self, error: ValueError, crop: tuple[int, int]) -> TrainingError:
        if "more than 1 value per channel" not in str(error):
            return TrainingError(f"--crop {crop[0]} {crop[1]}: {error}")
        return TrainingError(
            f"batch norm cannot train on a batch of {self.config.batch_size} at a crop of "
            f"{crop[0]} x {crop[1]}: the network's smallest feature maps are 1 x 1, one value per "
            "channel. Choose a larger --crop or --batch-size, or a network without batch norm "
            "(fcn, or unet --no-batch-norm)"
        )

    def _prepare(self, model: SegmentationModel) -> None:
        config = self.config
        self.model: SegmentationModel = model.to(  # type: ignore[call-overload]
            device=self.device, memory_format=torch.channels_last
        )
        if self.device.type == "cpu" and config.precision == "fp32":
            use_winograd(self.model, WinogradConv2d)
        started = bool(config.vgg16 or config.start) and has_vgg16_encoder(model)
        self.encoder = encoder_layers(model) if started else []
        frozen = encoder_layers(model, config.frozen) if started else []
        if config.vgg16 and any(isinstance(layer, nn.BatchNorm2d) for layer in self.encoder):
            calibrate(model, self._normalised(self._first_images()))
        for layer in frozen:
            layer.requires_grad_(False)
        self.in_evaluation_mode = [*frozen]
        if config.freeze_batch_norm:
            self.in_evaluation_mode += batch_norms(model)
        synchronise(self.model)
        self.optimizer = optimizer_for(self.model, config, self.encoder)
        self.average = _moving_average(self.model, config.ema) if config.ema else None

    def _first_images(self) -> Tensor:
        """Crops of 16 images spread over the training split, (16, C, h, w) in [0, 1]."""
        crops = self._crops(epoch=0)
        chosen = np.linspace(0, len(crops) - 1, 16).astype(int)
        return torch.stack([crops[int(index)][0] for index in chosen]).to(self.device)

    def _crops(self, epoch: int) -> AugmentedData:
        context = (0, 0)
        if self.config.crop != (0, 0):
            shrink = 2 if epoch < self.config.half_size_epochs else 1
            crop = crop_of(self.config, shrink, (0, 0))
            inner = self.output_size(crop)
            context = ((crop[0] - inner[0]) // 2, (crop[1] - inner[1]) // 2)
        return AugmentedData(self.data, self.config, epoch, context, self.borders)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.model).to(memory_format=torch.channels_last)

    @property
    def result(self) -> SegmentationModel:
        """The network that is validated and saved: the moving average, if there is one."""
        return self.model if self.average is None else cast(SegmentationModel, self.average.module)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or early stopping ends the training."""
        patience = self.config.patience
        return self.step >= self.total_steps or 0 < patience <= self.validations_since_best

    def batches(self, workers: int) -> Iterator[tuple[Tensor, ...]]:
        """The rest of the current epoch; with several processes, this one's part of each batch."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        return batches_from(self._crops(epoch), done, workers)

    def take_step(self, pixels: Tensor, target: Tensor, border: Tensor | None = None) -> float:
        """Train on one batch.

        The loss of a batch without any weight, for example if all pixels are void, is 0.

        Args:
            pixels: (N, C, h, w) float in [0, 1].
            target: (N, h, w) int64.
            border: (N, h, w) border weights, if any.

        Returns:
            The loss over all processes.

        Raises:
            TrainingError: If the loss or the gradient is not finite.
        """
        torch.manual_seed(seed_of(self.config.seed, self.step, process_index()))
        self.model.train()
        for layer in self.in_evaluation_mode:
            layer.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = group[PEAK] * self.rate_factors[self.step]
        size = (pixels.shape[-2], pixels.shape[-1])
        if not self.model.keeps_size:
            size = self.output_size(size)
        target = _centre(target.to(self.device), size)
        border = None if border is None else _centre(border.to(self.device), size)
        own_weight = total_weight(target, self.class_weights, border)
        weight = summed(own_weight)
        value = 0.0
        if weight > 0:
            share = float(own_weight / weight)
            value = self._update(pixels.to(self.device), target, border, share)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        self.losses.append(value)
        return value

    def _update(self, pixels: Tensor, target: Tensor, border: Tensor | None, share: float) -> float:
        """Run the forward and backward pass and the optimizer step; return the loss over all
        processes. `share` is this process's share of the total weight of the batch."""
        with self._autocast(pixels):
            try:
                logits = self.model(self._normalised(pixels)).float()
            except ValueError as error:
                raise self._too_small(error, (pixels.shape[-2], pixels.shape[-1])) from error
        loss = weighted_cross_entropy(logits, target, self.class_weights, border)
        loss = share * loss if share else 0.0 * logits.sum()
        value = float(summed(loss.detach()))
        if self.config.lovasz:  # no mean over pixels: computed on the whole batch in each process
            whole = lovasz_softmax(whole_batch(logits), whole_batch(target))
            loss = loss + self.config.lovasz * whole
            value += self.config.lovasz * float(whole.detach())
        self._check_finite("loss", value)
        scaler = self.accelerator.scaler  # for fp16; it skips steps with overflows
        if scaler is None:
            loss.backward()
            self._sum_gradients()
        else:
            scaler.scale(loss).backward()
            self._sum_gradients()
            scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        if scaler is None:
            self._check_finite("gradient's norm", float(norm))
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
            if scaler.get_scale() < MIN_LOSS_SCALE:
                self._check_finite("gradient's norm in fp16", math.inf)
        self.optimizer.zero_grad()
        return value

    def _sum_gradients(self) -> None:
        """Sum the gradients over the processes, since the loss is the sum of their shares."""
        if process_count() == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        total = summed(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _autocast(self, pixels: Tensor) -> AbstractContextManager:
        """Autocast to the config's precision, except for crops of up to 64 pixels on the CPU: for
        convolutions much larger than their input (fc6 on 2 pixels), bfloat16 weight gradients are
        computed from uninitialised memory (torch 2.13, oneDNN)."""
        safe = self.device.type != "cpu" or min(pixels.shape[-2:]) > 64
        return self.accelerator.autocast(AutocastKwargs(enabled=safe))

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        epoch, number = divmod(self.step, self.steps_per_epoch)
        batch = batch_order(self.data, self.config, epoch)[number]
        names = ", ".join(self.data.samples[index].name for index in batch[:10])
        factor = self.rate_factors[self.step]
        raise TrainingError(
            f"the {what} became {value} at step {self.step} (epoch {epoch + 1}, learning rates at "
            f"{100 * factor:.0f} % of their peak, images {names}); the last checkpoint is "
            "kept: restart with lower learning rates and a new --out"
        )

    @property
    def epochs_done(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def mean_loss(self) -> float:
        """Mean loss of the steps of the last epoch."""
        return float(np.mean(self.losses[-self.steps_per_epoch :]))

    def epoch_record(self, validate_every: int) -> dict[str, Any]:
        """The line of `metrics.jsonl` for the epoch that has just ended."""
        done = self.epochs_done
        now = time.monotonic()
        record: dict[str, Any] = {
            "epoch": done,
            "step": self.step,
            "loss": self.mean_loss,
            "learning_rate": cast(float, self.config.decoder_lr) * self.rate_factors[self.step - 1],
            "seconds": round(now - self.last_record, 2),
        }
        self.last_record = now
        if done % validate_every == 0 and self.step < self.total_steps:
            record |= self.validate(quiet=True)
            self.note_score(record)
        return record

    def note_score(self, record: dict[str, Any]) -> bool:
        """Update the best validation and the count for early stopping; return whether this
        validation is the best so far."""
        score = record.get("val_mean_iou")
        if score is None:
            return False
        if score <= self.best_score:
            self.validations_since_best += 1
            return False
        self.best_score, self.best_step, self.validations_since_best = score, self.step, 0
        return True

    def recompute_batch_norms(self, batches: int = 50, quiet: bool = True) -> None:
        """Recompute the statistics of all batch norms that are not frozen.

        Args:
            batches: Number of full-size training batches to use. The statistics of single images
                would lack the variance between images.
            quiet: Whether to hide the progress bar.
        """
        frozen = {
            copied
            for layer, copied in zip(self.model.modules(), self.result.modules(), strict=True)
            if layer in self.in_evaluation_mode
        }
        layers = [layer for layer in batch_norms(self.result) if layer not in frozen]
        if not layers:
            return
        assert self.config.epochs
        crops = self._crops(epoch=self.config.epochs)
        order = batch_order(self.data, self.config, self.config.epochs)[:batches]
        order = tqdm(order, "recomputing batch norms", disable=quiet, unit="batch", leave=False)
        pixels = (torch.stack([crops[i][0] for i in batch]).to(self.device) for batch in order)
        recompute(self.result, layers, pixels, self._forward_result)

    def _forward_result(self, pixels: Tensor) -> None:
        with self._autocast(pixels):
            self.result(self._normalised(pixels))

    def validate(self, quiet: bool = False) -> dict[str, Any]:
        """Compute the metrics on the split "val".

        Returns:
            "val_loss", the class-weighted cross entropy; "val_mean_iou" and the other metrics over
            all classes; "val_iou" with the IoU of each class by its name. NaN is omitted. Empty if
            there is no such split.
        """
        if self.val is None:
            return {}
        precision = "fp32" if self.config.precision == "fp32" else "auto"
        segmenter = Segmenter(self.result, self.device, precision)
        self.evaluation = evaluate(segmenter, self.val, boundaries=False, quiet=quiet)
        metrics = {"loss": self._validation_loss(segmenter), **self.evaluation.summary()}
        classes = self.evaluation.to_json()["classes"].items()
        return {
            f"val_{name}": round(value, 5)
            for name, value in metrics.items()
            if not math.isnan(value)
        } | {
            "val_iou": {
                name: round(row["iou"], 5) for name, row in classes if row["iou"] is not None
            }
        }

    def _validation_loss(self, segmenter: Segmenter) -> float:
        """Class-weighted cross entropy over the split at the working size; NaN if all is void."""
        assert self.val is not None
        sums = torch.zeros(2, dtype=torch.float64)
        weights = self.class_weights.cpu()
        for index in shared(range(len(self.val))):
            image, target = self.val.pair(index)
            probabilities = torch.from_numpy(segmenter.probabilities(image))
            target = resize(target, max(probabilities.shape[-2:]), nearest=True)
            ids = torch.from_numpy(target.astype(np.int64))[None]
            logs = probabilities[None].clamp(min=1e-12).log()
            loss = nll_loss(logs, ids, weights, ignore_index=IGNORE_INDEX, reduction="sum")
            sums += torch.stack([loss, total_weight(ids, weights)])
        total, weight = summed(sums.to(self.device).float()).tolist()
        return total / weight if weight else math.nan

    def state(self) -> dict[str, Any]:
        """The complete state of the training, for `restore`."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "losses": self.losses[-self.steps_per_epoch :],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": [self.best_score, self.best_step, self.validations_since_best],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`, also of earlier versions."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.losses = state["step"], state["losses"]
        if "best" in state:
            self.best_score, self.best_step, self.validations_since_best = state["best"]

    def extend(self, weights: dict[str, Tensor], step: int) -> None:
        """Continue after the last step of a finished training, with its weights and a new optimizer
        state."""
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average = _moving_average(self.model, self.config.ema)
        self.step = step


def _centre(values: Tensor, size: tuple[int, int]) -> Tensor:
    """The central part (N, h, w) of (N, H, W)."""
    top, left = (values.shape[-2] - size[0]) // 2, (values.shape[-1] - size[1]) // 2
    return values[..., top : top + size[0], left : left + size[1]]


def _moving_average(model: SegmentationModel, decay: float) -> AveragedModel:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.requires_grad_(False)
    return average
