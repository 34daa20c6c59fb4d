"""Which parameters learn, and how fast: AdamW with a peak learning rate for each part."""

from collections.abc import Sequence
from typing import cast

from torch import nn
from torch.optim import AdamW

from segmodels.models.base import SegmentationModel
from segmodels.models.fcn import FCN
from segmodels.training.config import TrainingConfig

PEAK = "peak_lr"  # a parameter group's entry; a step's rate is that times the schedule's factor


def optimizer_for(
    model: SegmentationModel, config: TrainingConfig, encoder: Sequence[nn.Module]
) -> AdamW:
    """AdamW over all parameters that require a gradient; only kernels decay.

    encoder: the layers that have learnt before, see `TrainingConfig.encoder_lr`.
    """
    rates = peak_rates(model, config, encoder)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((rates[parameter], parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                PEAK: rate,
                "weight_decay": config.weight_decay if is_kernel else 0.0,
            }
            for (rate, is_kernel), parameters in groups.items()
        ],
        fused=True,
    )


def peak_rates(
    model: SegmentationModel, config: TrainingConfig, encoder: Sequence[nn.Module]
) -> dict[nn.Parameter, float]:
    """Of every parameter, as `TrainingConfig` has them: encoder_lr, decoder_lr and skip_rates."""
    encoder_lr, decoder_lr = cast(float, config.encoder_lr), cast(float, config.decoder_lr)
    rates = dict.fromkeys(model.parameters(), decoder_lr)
    rates |= {parameter: encoder_lr for layer in encoder for parameter in layer.parameters()}
    if isinstance(model, FCN) and model.at_once:
        for name, factor in zip(("score_pool4", "score_pool3"), config.skip_rates, strict=True):
            if hasattr(model, name):  # an FCN-32s has neither, an FCN-16s no score_pool3
                rates[getattr(model, name).weight] = factor * decoder_lr
    return rates
