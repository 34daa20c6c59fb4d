"""Each preset beside the table of its paper, line by line."""

import dataclasses

import pytest
import torch
from torch import nn

from segmodels.models.fcn import bilinear_kernel
from segmodels.training import PRESETS, TrainingConfig, config_from_preset, train
from segmodels.training.model_factory import build_network, resolve_defaults
from segmodels.training.optim import PEAK, learning_rate_factors, optimizer_for
from tests.support.datasets import write_camvid

NAMES = ["a", "b"]


def built(preset, **options):
    config = resolve_defaults(config_from_preset(preset, data="d", **options))
    return config, build_network(config, NAMES)[0]


def test_fcn_8s_as_long_et_al_train_it():
    config, model = built("paper-fcn8s", vgg16=None)
    # VGG16 features as convolutions; conv1_1 padded by 100, fc6 7x7x4096 unpadded, fc7 1x1x4096.
    assert model.conv1_1.padding == (100, 100)
    assert (model.fc6.kernel_size, model.fc6.padding) == ((7, 7), (0, 0))
    assert (model.fc6.out_channels, model.fc7.out_channels) == (4096, 4096)
    assert model.fc7.kernel_size == (1, 1)
    assert model.pool.ceil_mode
    assert model.dropout == 0.5
    # 8s: upscore2 and upscore_pool4 of kernel 4 and stride 2, upscore8 of kernel 16 and stride 8.
    for layer, kernel, stride in (
        (model.upscore2, 4, 2),
        (model.upscore_pool4, 4, 2),
        (model.upscore8, 16, 8),
    ):
        assert (layer.kernel_size, layer.stride) == ((kernel, kernel), (stride, stride))
        assert torch.equal(layer.weight, bilinear_kernel(2, kernel))
    # The intermediate deconvolutions learn, the last is fixed; score layers start at zero.
    assert not model.upscore8.weight.requires_grad
    assert model.upscore2.weight.requires_grad
    for layer in (model.score_fr, model.score_pool4, model.score_pool3):
        assert not layer.weight.any()
    # In stages: skips without the scales of all-at-once training.
    assert not model.at_once
    # SGD, momentum 0.99 with batch 1, weight decay 5e-4, biases at twice the rate, a fixed rate.
    optimizer = optimizer_for(model, config, [])
    assert isinstance(optimizer, torch.optim.SGD)
    rates = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.99}
    assert config.batch_size == 1
    assert rates[model.conv1_1.bias][PEAK] == 2 * rates[model.conv1_1.weight][PEAK]
    assert rates[model.conv1_1.weight]["weight_decay"] == 5e-4
    assert rates[model.conv1_1.bias]["weight_decay"] == 0
    assert set(learning_rate_factors(config, 10)) == {1.0}
    # Whole images, no augmentation, no class weights; the encoder is fine-tuned throughout.
    assert (config.crop, config.zoom, config.horizontal_flip) == ((0, 0), (1, 1), False)
    assert (config.color_strength, config.balance, config.frozen) == (0, 0, 0)


def test_unet_as_ronneberger_et_al_train_it():
    config, model = built("paper-unet")
    # Figure 1: unpadded 3x3 convolutions, 64-128-256-512-1024, 572 -> 388.
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.padding in ((0, 0), "valid") for layer in convolutions)
    widths = [block[0].out_channels for block in (model.encoder1, model.encoder2, model.encoder3)]
    widths += [model.encoder4[0].out_channels, model.encoder5[0].out_channels]
    assert widths == [64, 128, 256, 512, 1024]
    assert config.crop == (572, 572)
    with torch.inference_mode(), torch.device("meta"):
        assert model.to("meta")(torch.empty(1, 1, 572, 572)).shape[-2:] == (388, 388)
    assert sum(p.numel() for p in model.parameters()) == 31_030_658
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    # Equation 2: w0 = 10, sigma = 5 px; dropout at the end of the contracting path.
    assert (config.border_weight, config.border_sigma, model.dropout) == (10, 5, 0.5)
    # Momentum 0.99, one tile a batch; elastic deformations of 10 px, class frequencies balanced.
    assert (config.optimizer, config.momentum, config.batch_size) == ("sgd", 0.99, 1)
    assert (config.elastic, config.rotate, config.balance) == (10, 180, 1)


def test_segnet_as_badrinarayanan_et_al_train_it():
    config, model = built("paper-segnet")
    # The encoder: VGG16's 13 convolutions, each with batch norm; 26 convolutions in all.
    assert model.variant == "vgg16"
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 26
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == 25
    assert model.pool.ceil_mode
    assert model.dropout == 0
    # Median-frequency balancing; SGD at a fixed 0.1, momentum 0.9, batches of 12.
    assert config.balance == 1
    assert (config.optimizer, config.momentum, config.batch_size) == ("sgd", 0.9, 12)
    assert (config.encoder_lr, config.decoder_lr) == (0.1, 0.1)
    assert set(learning_rate_factors(config, 10)) == {1.0}
    bayesian = config_from_preset("paper-segnet", data="d", dropout=0.5)
    assert build_network(resolve_defaults(bayesian), NAMES)[0].has_dropout
    basic = config_from_preset("paper-segnet", data="d", variant="basic")
    assert build_network(resolve_defaults(basic), NAMES)[0].display_name == "SegNet-Basic"


def test_street_scenes_keep_their_up_and_down_and_cells_have_none():
    road = config_from_preset("road", data="d", network="segnet")
    assert not any([road.vertical_flip, road.quarter_turns, road.rotate, road.elastic])
    cells = config_from_preset("microscopy", data="d")
    assert cells.network == "unet"
    assert cells.vertical_flip
    assert cells.quarter_turns
    assert cells.rotate
    assert cells.elastic
    assert cells.border_weight == 10


def test_a_preset_has_options_of_the_config_alone_and_is_overridden():
    names = {one.name for one in dataclasses.fields(TrainingConfig)}
    for preset in PRESETS.values():
        assert set(preset.options) <= names
        assert preset.about
    assert config_from_preset("paper-unet", data="d", momentum=0.5).momentum == 0.5


@pytest.mark.parametrize(
    ("preset", "network", "message"),
    [
        ("paper", None, "preset must be one of paper-fcn8s, paper-unet"),
        ("road", None, "the preset road works with any network: specify one"),
        ("paper-unet", "fcn", "the preset paper-unet is for unet, not for fcn"),
    ],
)
def test_a_preset_that_does_not_fit_is_refused(preset, network, message):
    with pytest.raises(ValueError, match=message):
        config_from_preset(preset, data="d", network=network)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains(preset, tmp_path):
    small = {
        "paper-fcn8s": {"head_channels": 8},
        "paper-unet": {"base_channels": 2},
        "paper-segnet": {"variant": "basic"},
        "road": {"network": "segnet", "variant": "basic"},
        "microscopy": {"base_channels": 2},
    }
    data = write_camvid(tmp_path / "data", train=4, val=1)
    config = config_from_preset(preset, data=str(data), steps=2, **small[preset])
    assert train(config, tmp_path / "out").confusion_matrix.sum() > 0
