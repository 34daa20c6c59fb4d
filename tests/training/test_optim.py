import pytest
import torch

from segmodels.models.fcn import FCN
from segmodels.models.vgg16 import encoder_layers
from segmodels.training.config import TrainingConfig
from segmodels.training.optim import PEAK, peak_rates
from tests.support.trainings import trainer_for


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
