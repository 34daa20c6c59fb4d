"""The state of a training, and its steps.

Every random draw depends on the seed and the position in the training alone, so that a run that
was interrupted and resumed takes the same steps as one that was not, and one in several processes
the same as one in one, dropout aside.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segmodels.data.dataset import DataError, has_split
from segmodels.data.validation import survey_splits
from segmodels.evaluation.evaluator import evaluate
from segmodels.inference.optimize import save_multiplications
from segmodels.inference.segmenter import Segmenter, normalise
from segmodels.models.base import SegmentationModel
from segmodels.models.layers.winograd import WinogradConv2d
from segmodels.models.vgg16 import calibrate, encoder_layers, has_vgg16_encoder
from segmodels.training.batch_norm import batch_norms, recompute, synchronise
from segmodels.training.config import TrainingConfig, TrainingError, build_network
from segmodels.training.dataloader import AugmentedData, batch_order, batches_from, seed_of
from segmodels.training.losses import (
    class_weights,
    lovasz_softmax,
    total_weight,
    weighted_cross_entropy,
)
from segmodels.training.optim import PEAK, optimizer_for
from segmodels.utils.distributed import process_count, process_index, summed, whole_batch

SMALLEST_SCALE = 2.0**-10  # of fp16 gradients; below it they overflow whatever the scale


class Trainer:
    """The state of a training: data, network, optimiser and position.

    Reads every file of the splits "train" and "val" first; DataError for all mistakes in them.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        splits = ["train", "val"] if has_split(config.data, "val") else ["train"]
        surveys = survey_splits(config.data, splits)
        self.data = surveys["train"].data
        self.val = surveys["val"].data if "val" in surveys else None
        self.digests = {n: d for survey in surveys.values() for n, d in survey.digests.items()}
        frequencies = surveys["train"].frequencies
        if np.isnan(frequencies).all():
            first = self.data.samples[0].label
            raise DataError(f"no label has a pixel that is not void, {first} on")
        self._check_batch()
        self.steps_per_epoch = len(self.data) // config.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self.losses: list[float] = []
        names = self.data.class_names
        self.class_weights = class_weights(frequencies, names, config.balance).to(self.device)
        model = build_network(config, names)
        self.model: SegmentationModel = model.to(  # type: ignore[call-overload]
            device=self.device, memory_format=torch.channels_last
        )
        if self.device.type == "cpu" and config.precision == "fp32":
            save_multiplications(self.model, WinogradConv2d)
        started = bool(config.vgg16 or config.start) and has_vgg16_encoder(model)
        self.encoder = encoder_layers(model) if started else []
        self.frozen = encoder_layers(model, config.frozen) if started else []
        if config.vgg16 and any(isinstance(layer, nn.BatchNorm2d) for layer in self.encoder):
            calibrate(model, self._normalised(self._first_pictures()))
        for layer in self.frozen:
            layer.requires_grad_(False)
        synchronise(self.model)
        self.optimizer = optimizer_for(self.model, config, self.encoder)
        self.average = _moving_average(self.model, config.ema) if config.ema else None

    def _check_batch(self) -> None:
        size, pictures = self.config.batch_size, len(self.data)
        if pictures < size:
            raise TrainingError(
                f"{pictures} training pictures are fewer than a batch of {size}: "
                "choose a smaller --batch-size"
            )
        if size < process_count():
            raise TrainingError(
                f"a batch of {size} cannot be shared by {process_count()} processes: choose a "
                "larger --batch-size, or start fewer"
            )

    def _first_pictures(self) -> Tensor:
        """Crops of 16 pictures spread over the training set, (16, 3, h, w) in [0, 1]."""
        crops = AugmentedData(self.data, self.config, epoch=0)
        chosen = np.linspace(0, len(crops) - 1, 16).astype(int)
        return torch.stack([crops[int(index)][0] for index in chosen]).to(self.device)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.model).to(memory_format=torch.channels_last)

    @property
    def result(self) -> SegmentationModel:
        """The network that is measured and kept: the moving average, if there is one."""
        return self.model if self.average is None else cast(SegmentationModel, self.average.module)

    def batches(self, workers: int) -> Iterator[tuple[Tensor, ...]]:
        """The rest of the present epoch; with several processes, this one's part of each batch."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        return batches_from(self.data, self.config, epoch, done, workers)

    def take_step(self, pixels: Tensor, target: Tensor, border: Tensor | None = None) -> float:
        """One batch, (N, 3, h, w) in [0, 1], (N, h, w) and perhaps border weights (N, h, w); its
        loss, over all processes. TrainingError if that or the gradient is not finite. A batch of
        no weight, all void for example, teaches nothing: its loss is 0."""
        torch.manual_seed(seed_of(self.config.seed, self.step, process_index()))
        self.model.train()
        for layer in self.frozen:
            layer.eval()
        factor = self.config.learning_rate_factor(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group[PEAK] * factor
        target = target.to(self.device)
        border = None if border is None else border.to(self.device)
        own_weight = total_weight(target, self.class_weights, border)
        weight = summed(own_weight)
        value = 0.0
        if weight > 0:
            share = float(own_weight / weight)
            value = self._descend(pixels.to(self.device), target, border, share)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        self.losses.append(value)
        return value

    def _descend(
        self, pixels: Tensor, target: Tensor, border: Tensor | None, share: float
    ) -> float:
        """share: of this process's pixels in the weight of the whole batch."""
        with self._autocast(pixels):
            logits = self.model(self._normalised(pixels)).float()
        loss = weighted_cross_entropy(logits, target, self.class_weights, border)
        loss = share * loss if share else 0.0 * logits.sum()
        value = float(summed(loss.detach()))
        if self.config.lovasz:  # of the whole batch, so that it is the same in every process
            whole = lovasz_softmax(whole_batch(logits), whole_batch(target))
            loss = loss + self.config.lovasz * whole
            value += self.config.lovasz * float(whole.detach())
        self._check_finite("loss", value)
        scaler = self.accelerator.scaler  # of fp16; it leaves out steps that overflow
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
            if scaler.get_scale() < SMALLEST_SCALE:
                self._check_finite("gradient's norm in fp16", math.inf)
        self.optimizer.zero_grad()
        return value

    def _sum_gradients(self) -> None:
        """The loss is the sum of the processes' shares, and so is its gradient."""
        if process_count() == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        total = summed(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _autocast(self, pixels: Tensor) -> AbstractContextManager:
        """The config's precision, but not for crops of up to 64 pixels on the CPU: its bfloat16
        weight gradients of a convolution much larger than its input (fc6 on a map of 2 pixels) are
        of memory that nobody wrote (torch 2.13, oneDNN)."""
        safe = self.device.type != "cpu" or min(pixels.shape[-2:]) > 64
        return self.accelerator.autocast(AutocastKwargs(enabled=safe))

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        epoch, number = divmod(self.step, self.steps_per_epoch)
        batch = batch_order(self.data, self.config, epoch)[number]
        names = ", ".join(self.data.samples[index].picture.name for index in batch[:10])
        factor = self.config.learning_rate_factor(self.step, self.total_steps)
        raise TrainingError(
            f"the {what} became {value} at step {self.step} (epoch {epoch + 1}, learning rates at "
            f"{100 * factor:.0f} % of their peak, pictures {names}); the last checkpoint is "
            "untouched: begin anew, in another --out, with lower learning rates"
        )

    @property
    def epochs_done(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def mean_loss(self) -> float:
        """Over the last epoch's steps."""
        return float(np.mean(self.losses[-self.steps_per_epoch :]))

    def epoch_record(self, validate_every: int) -> dict[str, Any]:
        """What `metrics.jsonl` says of the epoch that has just ended."""
        done = self.epochs_done
        record = {"epoch": done, "step": self.step, "loss": self.mean_loss}
        if done % validate_every == 0 and self.step < self.total_steps:
            record |= self.validate(quiet=True)
        return record

    def recompute_batch_norms(self, batches: int = 50) -> None:
        """`batch_norms.recompute` over as many full-size batches of the training set; frozen ones
        stay. Batches are made as in training: a single picture's variance lacks what pictures
        differ by."""
        frozen = {
            theirs
            for ours, theirs in zip(self.model.modules(), self.result.modules(), strict=True)
            if ours in self.frozen
        }
        layers = [layer for layer in batch_norms(self.result) if layer not in frozen]
        crops = AugmentedData(self.data, self.config, epoch=self.config.epochs)
        order = batch_order(self.data, self.config, self.config.epochs)[:batches]
        pixels = (torch.stack([crops[i][0] for i in batch]).to(self.device) for batch in order)
        recompute(self.result, layers, pixels, self._forward_result)

    def _forward_result(self, pixels: Tensor) -> None:
        with self._autocast(pixels):
            self.result(self._normalised(pixels))

    def validate(self, quiet: bool = False) -> dict[str, float]:
        """Figures on the split "val", those that are NaN left out; none without that split."""
        if self.val is None:
            return {}
        precision = "fp32" if self.config.precision == "fp32" else "auto"
        segmenter = Segmenter(self.result, self.device, precision)
        evaluation = evaluate(segmenter, self.val, boundaries=False, quiet=quiet)
        figures = {f"val_{name}": value for name, value in evaluation.summary().items()}
        return {name: round(value, 5) for name, value in figures.items() if not math.isnan(value)}

    def state(self) -> dict[str, Any]:
        """All that decides how the training goes on, for `restore`."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "losses": self.losses[-self.steps_per_epoch :],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.losses = state["step"], state["losses"]


def _moving_average(model: SegmentationModel, decay: float) -> AveragedModel:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.requires_grad_(False)
    return average
