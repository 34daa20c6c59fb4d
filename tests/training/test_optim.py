import math

import pytest
import torch

from segmodels.models.fcn import FCN
from segmodels.models.vgg16 import encoder_layers
from segmodels.training.config import TrainingConfig
from segmodels.training.optim import PEAK, learning_rate_factors, peak_rates
from tests.support.trainings import tiny_trainer, trainer_for


@pytest.mark.parametrize("frozen", [0, 4])
def test_every_trainable_parameter_is_in_one_group_and_no_other(camvid, vgg16_file, frozen):
    options = {"vgg16": vgg16_file, "frozen": frozen, "encoder_lr": 0.002}
    config = TrainingConfig("segnet", str(camvid), batch_size=2, crop=(32, 32), **options)
    trainer = trainer_for(config)
    groups = trainer.optimizer.param_groups
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    grouped = [names[parameter] for group in groups for parameter in group["params"]]
    # A convolution and its batch norm have weight and bias each: 4 parameters a frozen layer.
    trainable = [name for p, name in names.items() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert len(names) - len(trainable) == 4 * frozen
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            is_kernel = name.endswith("conv.weight") or name == "conv1_1_d.weight"
            assert group["weight_decay"] == (1e-4 if is_kernel else 0)
            assert group[PEAK] == (0.002 if name.startswith("encoders") else 0.001)


def test_an_encoder_that_has_learnt_before_gets_its_own_learning_rate(camvid, vgg16_file, tmp_path):
    first = TrainingConfig("segnet", str(camvid), vgg16=vgg16_file, batch_size=2, crop=(32, 32))
    model = trainer_for(first).model
    model.save_pretrained(tmp_path / "first")
    start = str(tmp_path / "first")
    trainer = trainer_for(
        TrainingConfig("segnet", str(camvid), start=start, batch_size=2, frozen=2)
    )
    now = dict(trainer.model.named_parameters())
    assert all(torch.equal(old, now[name]) for name, old in model.named_parameters())
    rates = {p: g[PEAK] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert rates[trainer.model.encoders[4].conv5_3.conv.weight] == 2e-4
    assert rates[trainer.model.conv1_1_d.weight] == 1e-3
    assert not trainer.model.encoders[0].conv1_2.conv.weight.requires_grad


@pytest.mark.parametrize(
    ("stride", "at_once", "expected"),
    [
        (8, True, {"score_pool4": 0.02, "score_pool3": 0.3}),  # 2 and 30 times the decoder's 0.01
        (16, True, {"score_pool4": 0.02}),
        (32, True, {}),
        (8, False, {"score_pool4": 0.01, "score_pool3": 0.01}),  # its skips are not scaled
    ],
)
def test_scaled_skips_of_an_fcn_learn_at_their_own_rates(stride, at_once, expected):
    model = FCN(class_names=["a", "b"], stride=stride, head_channels=4, at_once=at_once)
    config = TrainingConfig("fcn", "d", decoder_lr=0.01, skip_rates=(2.0, 30.0))
    rates = peak_rates(model, config, encoder_layers(model))
    scores = {name: getattr(model, name) for name in expected}
    assert {name: rates[score.weight] for name, score in scores.items()} == expected
    assert all(rates[score.bias] == 0.01 for score in scores.values())  # biases are not scaled
    assert rates[model.score_fr.weight] == 0.01
    assert rates[model.conv3_1.weight] == 1e-4


# ---- schedules ----


def test_the_poly_schedule_by_hand():
    config = TrainingConfig("unet", "d", warmup_steps=2)
    factors = learning_rate_factors(config, 9)
    # Step 0: half of the rise; step 1: (1 - 1/9)^0.9 = 0.8994; step 8: (1/9)^0.9 = 0.1384.
    assert factors[0] == 0.5
    assert factors[1] == pytest.approx(0.8994, abs=1e-4)
    assert factors[8] == pytest.approx(0.1384, abs=1e-4)
    assert factors[1:] == sorted(factors[1:], reverse=True)
    assert learning_rate_factors(TrainingConfig("unet", "d", warmup_steps=0), 9)[0] == 1


def test_the_constant_schedule_rises_and_stays():
    config = TrainingConfig("unet", "d", schedule="constant", warmup_steps=4)
    assert learning_rate_factors(config, 6) == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize("total", [1, 2, 3, 10, 99])
def test_the_one_cycle_schedule_is_smith_and_topins(total):
    """Cosines from 1/25 up to the peak over the first 30 %, and down to 1/250,000."""

    def cosine(start, end, part):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))

    factors = learning_rate_factors(TrainingConfig("unet", "d", schedule="onecycle"), total)
    peak = 0.3 * total - 1
    for step, factor in enumerate(factors):
        rising = step < peak
        expected = (
            cosine(1 / 25, 1, step / peak)
            if rising
            else cosine(1, 1 / 250_000, (step - peak) / (total - 1 - peak))
        )
        assert factor == pytest.approx(expected, rel=1e-6)
    assert len(factors) == total


def test_sgd_has_its_momentum_and_biases_their_factor(camvid):
    options = {"optimizer": "sgd", "momentum": 0.99, "bias_lr_factor": 2.0, "weight_decay": 5e-4}
    trainer = tiny_trainer(camvid, **options)
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    for group in trainer.optimizer.param_groups:
        assert group["momentum"] == 0.99
        for parameter in group["params"]:
            assert group[PEAK] == (0.02 if names[parameter].endswith("bias") else 0.01)
            assert group["weight_decay"] == (5e-4 if parameter.ndim > 1 else 0)


def test_a_step_of_sgd_is_the_formulas(camvid):
    trainer = tiny_trainer(camvid, optimizer="sgd", momentum=0.9, weight_decay=0.0, warmup_steps=1)
    weight = trainer.model.heatmaps.weight
    before, gradients = weight.detach().clone(), []
    weight.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.clone()))
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def noted(parameters, most):
        norms.append(clip(parameters, most))
        return norms[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
        for batch in list(trainer.batches(0))[:2]:
            trainer.take_step(*batch)
    velocity = torch.zeros_like(before)
    for step, (gradient, norm) in enumerate(zip(gradients, norms, strict=True)):
        velocity = 0.9 * velocity + gradient * min(1.0, 5.0 / float(norm))
        before -= 0.01 * trainer.rate_factors[step] * velocity
    torch.testing.assert_close(weight.detach(), before, rtol=1e-4, atol=1e-6)
