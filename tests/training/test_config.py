import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segmodels.hub.filenames import START_TRAINING
from segmodels.models.fcn import FCN
from segmodels.models.segnet import SegNet
from segmodels.models.unet import UNet
from segmodels.training.config import TrainingConfig, TrainingError, build_network, settled

NAMES = ["a", "b", "c"]
CARDS = Path(__file__).parents[2] / "weights_card"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "vgg"}, "network must be one of fcn, unet, segnet, got 'vgg'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 3, "half_size_epochs": 4}, "half_size_epochs must be from 0 to epochs, got 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"crop": (1, 5)}, r"crop must be \(height, width\), both at least 2, got \(1, 5\)"),
        ({"zoom": (2.0, 1.0)}, r"zoom must be \(from, to\) with 0 < from <= to"),
        ({"working_size": 1}, "working_size must be None or at least 2"),
        ({"frozen": 14}, "frozen must be from 0 to 13"),
        ({"skip_rates": (1, 0)}, r"skip_rates must be \(of pool4, of pool3\), both positive, got"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"schedule": "step"}, "schedule must be one of poly, onecycle, got 'step'"),
        ({"ema": 1.0}, "ema must be at least 0 and less than 1, got 1.0"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
        ({"color_strength": 3}, "color_strength must be from 0 to 2.5, got 3"),
        ({"degrade": 1.5}, "degrade must be from 0 to 1, got 1.5"),
        ({"elastic": -1}, "elastic must be 0 or more, got -1"),
        ({"border_weight": -1}, "border_weight must be 0 or more, got -1"),
        ({"border_sigma": 0}, "border_sigma must be positive, got 0"),
        ({"lovasz": -1}, "lovasz must be 0 or more, got -1"),
    ],
)
def test_a_value_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{"network": "unet", "data": "d", **options})


def test_lists_do_for_tuples():
    config = TrainingConfig("fcn", "d", crop=[64, 80], zoom=[1, 2], skip_rates=[3, 4])
    assert config == TrainingConfig("fcn", "d", crop=(64, 80), zoom=(1, 2), skip_rates=(3, 4))


def test_what_is_published_names_no_folder_of_the_machine(tmp_path):
    weights = tmp_path / "vgg.safetensors"
    weights.touch()
    config = TrainingConfig(
        "fcn", str(tmp_path / "somewhere" / "camvid"), vgg16=str(weights), epochs=7
    )
    published = json.loads(json.dumps(config.published()))
    assert (published["data"], published["vgg16"]) == ("camvid", "vgg.safetensors")
    assert str(tmp_path) not in json.dumps(published)
    again = TrainingConfig(**published)
    assert again.published() == published
    assert (again.epochs, again.crop) == (7, config.crop)
    assert TrainingConfig("fcn", "d", vgg16="org/vgg16").published()["vgg16"] == "org/vgg16"


def test_the_poly_schedule_by_hand():
    config = TrainingConfig("unet", "d", warmup_steps=2)
    factors = [config.learning_rate_factor(step, 9) for step in range(9)]
    # Step 0: half of the rise; step 1: (1 - 1/9)^0.9 = 0.8994; step 8: (1/9)^0.9 = 0.1384.
    assert factors[0] == 0.5
    assert factors[1] == pytest.approx(0.8994, abs=1e-4)
    assert factors[8] == pytest.approx(0.1384, abs=1e-4)
    assert factors[1:] == sorted(factors[1:], reverse=True)
    assert TrainingConfig("unet", "d", warmup_steps=0).learning_rate_factor(0, 9) == 1


@pytest.mark.parametrize("total", [1, 2, 3, 10, 99])
def test_the_one_cycle_schedule_is_torchs(total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, cycle_momentum=False
    )
    config = TrainingConfig("unet", "d", schedule="onecycle")
    for step in range(total):
        if total > 3:  # torch's own divides by less than nothing where the rise has no step
            expected = optimizer.param_groups[0]["lr"]
            assert config.learning_rate_factor(step, total) == pytest.approx(expected, rel=1e-6)
        assert 0 < config.learning_rate_factor(step, total) <= 1
        optimizer.step()
        if step < total - 1:
            theirs.step()


def test_recipes_of_earlier_versions_mean_what_they_meant():
    old = json.loads((CARDS / "unet-camvid" / "training.json").read_text())
    while START_TRAINING in old:
        old = old[START_TRAINING]  # in the end the first stage, from before these options
    assert not {"schedule", "ema", "degrade", "color_strength"} & set(old)
    config = TrainingConfig(**old)
    assert (config.schedule, config.precision, config.color_strength) == ("poly", "bf16", 1.0)
    absent = (config.ema, config.degrade, config.elastic, config.border_weight, config.lovasz)
    assert not any(absent)


@pytest.mark.parametrize("name", ["fcn-camvid", "fcn-msrc"])
def test_records_of_fcns_say_at_which_rates_their_skips_learnt(name):
    record = json.loads((CARDS / name / "training.json").read_text())
    while START_TRAINING in record:
        assert "skip_rates" in record
        record = record[START_TRAINING]
    assert record["skip_rates"] == [1.0, 1.0]  # before there was a choice


def test_networks_are_built_as_the_recipe_says():
    unet = build_network(
        TrainingConfig("unet", "d", base_channels=4, dropout=0.25, working_size=96), NAMES
    )
    assert isinstance(unet, UNet)
    assert (unet.base_channels, unet.dropout, unet.working_size) == (4, 0.25, 96)
    assert (unet.class_names, unet.encoder) == (NAMES, "plain")
    segnet = build_network(TrainingConfig("segnet", "d", variant="basic"), NAMES)
    assert isinstance(segnet, SegNet)
    assert (segnet.variant, segnet.dropout) == ("basic", 0.0)


@pytest.mark.parametrize(("stride", "last"), [(32, "upscore"), (16, "upscore16"), (8, "upscore8")])
def test_of_an_fcn_only_the_last_deconvolution_stays_bilinear(stride, last):
    config = TrainingConfig("fcn", "d", stride=stride, head_channels=4)
    fcn = build_network(config, NAMES)
    assert isinstance(fcn, FCN)
    assert (fcn.stride, fcn.head_channels, fcn.dropout) == (stride, 4, 0.5)
    fixed = [name for name, p in fcn.named_parameters() if not p.requires_grad]
    assert fixed == [f"{last}.weight"]


def test_the_seed_decides_the_start():
    def start(seed):
        return build_network(
            TrainingConfig("unet", "d", base_channels=2, seed=seed), NAMES
        ).state_dict()

    first, second, other = start(1), start(1), start(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["heatmaps.weight"], other["heatmaps.weight"])


# ---- fine-tuning ----


@pytest.fixture
def trained(tmp_path):
    """The folder of a small network with weights of its own, and the network."""
    torch.manual_seed(7)
    unet = UNet(class_names=["a", "b"], base_channels=3, dropout=0.25, palette=[[1, 2, 3]] * 2)
    unet.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained", unet


def test_a_start_of_the_same_classes_is_taken_whole(trained):
    folder, old = trained
    new = build_network(TrainingConfig("unet", "d", start=str(folder), working_size=96), ["a", "b"])
    assert (new.base_channels, new.dropout, new.working_size) == (3, 0.25, 96)
    assert new.palette == old.palette
    assert all(torch.equal(new.state_dict()[n], old.state_dict()[n]) for n in old.state_dict())


def test_a_start_brings_its_working_size_unless_another_is_named(tmp_path):
    unet = UNet(class_names=["a", "b"], base_channels=2, working_size=96)
    unet.save_pretrained(tmp_path)
    config = TrainingConfig("unet", "d", start=str(tmp_path))
    assert settled(config) == replace(config, working_size=96)
    assert settled(replace(config, working_size=64)).working_size == 64
    assert settled(TrainingConfig("unet", "d")).working_size is None


def test_a_start_of_other_classes_keeps_all_but_the_class_heat_maps(trained):
    folder, old = trained
    new = build_network(
        TrainingConfig("unet", "d", start=str(folder), dropout=0.0), ["x", "y", "z"]
    )
    assert (new.class_names, len(new.palette), new.dropout) == (["x", "y", "z"], 3, 0.0)
    before, now = old.state_dict(), new.state_dict()
    anew = {name for name in now if not torch.equal(now[name], before[name])}
    assert anew == {"heatmaps.weight", "heatmaps.bias"}


def test_a_start_of_another_kind_is_refused(trained):
    with pytest.raises(TrainingError, match=r"holds a UNet.*segmodels train unet"):
        build_network(TrainingConfig("fcn", "d", start=str(trained[0])), ["a", "b"])


def test_the_published_recipe_names_the_start_without_its_folder(trained):
    assert TrainingConfig("unet", "d", start=str(trained[0])).published()["start"] == "trained"
    assert TrainingConfig("unet", "d", start="org/unet").published()["start"] == "org/unet"
