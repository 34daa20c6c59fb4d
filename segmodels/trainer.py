"""The state of a training, and its steps.

Every random draw depends on the seed and the position in the training alone, so that a run that
was interrupted and resumed takes the same steps as one that was not.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from .augment import augment
from .data import IGNORE_INDEX, DataError, SegmentationData, class_frequencies, has_split, open_data
from .evaluate import evaluate
from .files import whole_file
from .pictures import resize
from .recipe import Recipe, build_network
from .segmenter import Segmenter, normalise
from .vgg16 import calibrate, encoder_layers


class TrainingError(RuntimeError):
    """Training cannot go on: why, and what to do."""


class AugmentedData(Dataset[tuple[Tensor, Tensor]]):
    """One epoch's augmented crops: (3, h, w) float in [0, 1] and (h, w) int64."""

    def __init__(self, data: SegmentationData, recipe: Recipe, epoch: int) -> None:
        self.data, self.recipe, self.epoch = data, recipe, epoch
        self.shrink = 2 if epoch < recipe.half_size_epochs else 1

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, target = self.data.pair(index)
        size = max(1, (self.recipe.working_size or max(target.shape)) // self.shrink)
        picture, target = resize(picture, size), resize(target, size, nearest=True)
        height, width = (side // self.shrink for side in self.recipe.crop)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self.recipe.seed, self.epoch, index))
            return augment(picture, target, crop=(height, width), zoom=self.recipe.zoom)


class Trainer:
    """The state of a training: network, optimiser and position."""

    def __init__(self, recipe: Recipe, data: SegmentationData, device: torch.device) -> None:
        if len(data) < recipe.batch_size:
            raise TrainingError(
                f"{len(data)} training pictures are fewer than a batch of {recipe.batch_size}: "
                "choose a smaller --batch-size"
            )
        self.recipe, self.data, self.device = recipe, data, device
        self.val = open_data(recipe.data, "val") if has_split(recipe.data, "val") else None
        self.steps_per_epoch = len(data) // recipe.batch_size
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self.step = 0
        self.losses: list[float] = []
        self.class_weights = class_weights(data, recipe.balance).to(device)
        model = build_network(recipe, data.class_names)
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = encoder_layers(model, recipe.frozen) if recipe.vgg16 else []
        if recipe.vgg16 and any(
            isinstance(layer, nn.BatchNorm2d) for layer in encoder_layers(model)
        ):
            calibrate(model, self._normalised(self._first_pictures()))
        for layer in self.frozen:
            layer.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), weight_decay=recipe.weight_decay, fused=True
        )

    def _parameter_groups(self) -> list[dict[str, Any]]:
        encoder = (
            {p for layer in encoder_layers(self.model) for p in layer.parameters()}
            if self.recipe.vgg16
            else set()
        )
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                groups.setdefault((parameter in encoder, parameter.ndim > 1), []).append(parameter)
        recipe = self.recipe
        return [
            {
                "params": parameters,
                "peak_lr": recipe.encoder_lr if in_encoder else recipe.decoder_lr,
                "weight_decay": recipe.weight_decay if is_weight else 0.0,
            }
            for (in_encoder, is_weight), parameters in groups.items()
        ]

    def _first_pictures(self) -> Tensor:
        """Crops of 16 pictures spread over the training set, (16, 3, h, w) in [0, 1]."""
        crops = AugmentedData(self.data, self.recipe, epoch=0)
        chosen = np.linspace(0, len(crops) - 1, 16).astype(int)
        return torch.stack([crops[int(index)][0] for index in chosen]).to(self.device)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.model).to(memory_format=torch.channels_last)

    def batches(self, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the present epoch."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(_seed(self.recipe.seed, epoch))
        order = torch.randperm(len(self.data), generator=generator).tolist()
        size = self.recipe.batch_size
        batches = [order[i * size : (i + 1) * size] for i in range(done, self.steps_per_epoch)]
        data = AugmentedData(self.data, self.recipe, epoch)
        return iter(DataLoader(data, batch_sampler=batches, num_workers=workers))

    def learning_rate_factor(self) -> float:
        """Of the peak, for the step to come: a linear rise, times (1 - step / total_steps)^0.9."""
        rise = min(1.0, (self.step + 1) / max(1, self.recipe.warmup_steps))
        return rise * (1 - self.step / self.total_steps) ** 0.9

    def take_step(self, pixels: Tensor, target: Tensor) -> float:
        """One batch, (N, 3, h, w) in [0, 1] and (N, h, w); its loss. TrainingError if that or the
        gradient is not finite. A batch that is all void teaches nothing: its loss is 0."""
        torch.manual_seed(_seed(self.recipe.seed, self.step))
        self.model.train()
        for layer in self.frozen:
            layer.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.learning_rate_factor()
        value = 0.0
        if (target != IGNORE_INDEX).any():
            value = self._descend(pixels.to(self.device), target.to(self.device))
        self.step += 1
        self.losses.append(value)
        return value

    def _descend(self, pixels: Tensor, target: Tensor) -> float:
        with self._autocast(pixels):
            logits = self.model(self._normalised(pixels))
        loss = cross_entropy(logits.float(), target, self.class_weights, ignore_index=IGNORE_INDEX)
        self._check_finite("loss", float(loss.detach()))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._check_finite("gradient's norm", float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _autocast(self, pixels: Tensor) -> torch.autocast:
        """bfloat16, but not for crops of up to 64 pixels on the CPU: its bfloat16 weight gradients
        of a convolution much larger than its input (fc6 on a map of 2 pixels) are of memory that
        nobody wrote (torch 2.13, oneDNN)."""
        safe = self.device.type != "cpu" or min(pixels.shape[-2:]) > 64
        return torch.autocast(self.device.type, torch.bfloat16, enabled=safe)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} became {value} at step {self.step}; the last checkpoint is untouched: "
                "begin anew, in another --out, with lower learning rates"
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

    @torch.no_grad()
    def recompute_batch_norms(self, pictures: int = 100) -> None:
        """Statistics of the batch norms over whole training pictures at the working size (SegNet,
        section 4.1), in place of the running means of the augmented crops: means of the pictures'
        means and of their (unbiased) variances."""
        layers = [
            m
            for m in self.model.modules()
            if isinstance(m, nn.BatchNorm2d) and m not in self.frozen
        ]
        if not layers:
            return
        self.model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over all that is seen
            layer.train()
        for index in np.linspace(0, len(self.data) - 1, min(pictures, len(self.data))).astype(int):
            picture = self.data.picture(int(index))
            picture = resize(picture, self.recipe.working_size or max(picture.shape[:2]))
            pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].to(self.device) / 255
            with self._autocast(pixels):
                self.model(self._normalised(pixels))
        self.model.eval()

    def validate(self, quiet: bool = False) -> dict[str, float]:
        """Figures on the split "val", those that are NaN left out; none without that split."""
        if self.val is None:
            return {}
        segmenter = Segmenter(self.model, self.device)
        evaluation = evaluate(segmenter, self.val, boundaries=False, quiet=quiet)
        figures = {f"val_{name}": value for name, value in evaluation.summary().items()}
        return {name: round(value, 5) for name, value in figures.items() if not math.isnan(value)}

    def save(self, path: Path) -> None:
        """A checkpoint; an interruption leaves the old one."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "losses": self.losses[-self.steps_per_epoch :],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(path) as scratch:
            torch.save(state, scratch)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint. TrainingError if it is damaged or of another recipe."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            check_same(Recipe(**state["recipe"]), self.recipe, f"{path} is of")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.losses = state["step"], state["losses"]
        except TrainingError:
            raise
        except Exception as error:  # whatever a damaged file makes torch raise
            raise TrainingError(
                f"{path} is no checkpoint that this version reads: {error}; delete it to begin anew"
            ) from error


def class_weights(data: SegmentationData, balance: float) -> Tensor:
    """(num_classes,) float32: (median frequency / frequency)^balance (SegNet, section 4.1); 0, with
    a warning, for a class that no training picture has. DataError if all is void."""
    frequencies = class_frequencies(data)
    absent = np.isnan(frequencies)
    if absent.all():
        raise DataError(f"no label has a pixel that is not void, {data.samples[0].label} on")
    if absent.any():
        names = [
            name for name, is_absent in zip(data.class_names, absent, strict=True) if is_absent
        ]
        warnings.warn(
            f"no training label has a pixel of {', '.join(names)} (ids in the order of "
            f"classes.txt, {IGNORE_INDEX} is void); the network cannot learn them",
            stacklevel=2,
        )
    weights = (np.nanmedian(frequencies) / frequencies) ** balance
    return torch.tensor(np.where(absent, 0.0, weights), dtype=torch.float32)


def check_same(theirs: Recipe, ours: Recipe, what: str) -> None:
    old, new = theirs.published(), ours.published()
    changed = [f"{key} {old[key]!r}, now {new[key]!r}" for key in new if old[key] != new[key]]
    if changed:
        raise TrainingError(
            f"{what} a training with other options ({'; '.join(changed)}): give the same ones "
            "again, or another --out to begin anew"
        )


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
