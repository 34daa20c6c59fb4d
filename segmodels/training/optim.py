"""Optimizer, learning rates and schedule."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from segmodels.models.base import SegmentationModel
from segmodels.training.config import TrainingConfig

PEAK = "peak_lr"  # entry of parameter groups; learning rate = peak rate * factor of the schedule


def optimizer_for(
    model: SegmentationModel, config: TrainingConfig, encoder: Sequence[nn.Module]
) -> Optimizer:
    """Create the optimizer for all trainable parameters, with weight decay on kernels only.

    Args:
        model: The network.
        config: Optimizer, learning rates and weight decay.
        encoder: Layers that are initialised with pretrained weights; see
            `TrainingConfig.encoder_lr`.
    """
    rates = peak_rates(model, config, encoder)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((rates[parameter], parameter.ndim > 1), []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": rate,
            PEAK: rate,
            "weight_decay": config.weight_decay if is_kernel else 0.0,
        }
        for (rate, is_kernel), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return SGD(options, momentum=config.momentum, fused=True)
    return AdamW(options, fused=True)


def peak_rates(
    model: SegmentationModel, config: TrainingConfig, encoder: Sequence[nn.Module]
) -> dict[nn.Parameter, float]:
    """The peak learning rate of each parameter, from encoder_lr, decoder_lr, bias_lr_factor and the
    factors of the network."""
    encoder_lr, decoder_lr = cast(float, config.encoder_lr), cast(float, config.decoder_lr)
    rates = dict.fromkeys(model.parameters(), decoder_lr)
    rates |= {parameter: encoder_lr for layer in encoder for parameter in layer.parameters()}
    for parameter, factor in model.learning_rate_factors(asdict(config)).items():
        rates[parameter] = factor * decoder_lr
    if config.bias_lr_factor != 1:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                rates[parameter] *= config.bias_lr_factor
    return rates


def learning_rate_factors(config: TrainingConfig, total_steps: int) -> list[float]:
    """The schedule: factors on the peak learning rates for steps 0 to total_steps - 1.

    torch's schedulers are run once before training. The learning rate then depends only on the
    step, and no scheduler state has to be restored when a training is resumed.
    """
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    scheduler: LRScheduler
    if config.schedule == "onecycle":
        scheduler = OneCycleLR(optimizer, 1.0, total_steps, cycle_momentum=False)
    else:
        power = 0.9 if config.schedule == "poly" else 0.0
        warmup = max(1, config.warmup_steps)

        def factor(step: int) -> float:
            return float(min(1.0, (step + 1) / warmup) * max(0.0, 1 - step / total_steps) ** power)

        scheduler = LambdaLR(optimizer, factor)
    factors = []
    for step in range(total_steps):
        factors.append(float(scheduler.get_last_lr()[0]))
        if step < total_steps - 1:
            optimizer.step()
            scheduler.step()
    return factors
