from dataclasses import replace

import numpy as np
import pytest
import torch

from segmodels import FCN, SegNet, UNet
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.model_factory import build_network, resolve_defaults

NAMES = ["a", "b", "c"]


def built(config, class_names):
    return build_network(resolve_defaults(config), class_names)[0]


def test_networks_are_built_as_the_config_says():
    unet = built(TrainingConfig("unet", "d", base_channels=4, dropout=0.25, working_size=96), NAMES)
    assert isinstance(unet, UNet)
    assert (unet.base_channels, unet.dropout, unet.working_size) == (4, 0.25, 96)
    assert (unet.class_names, unet.encoder) == (NAMES, "plain")
    segnet = built(TrainingConfig("segnet", "d", variant="basic"), NAMES)
    assert isinstance(segnet, SegNet)
    assert (segnet.variant, segnet.dropout) == ("basic", 0.0)


@pytest.mark.parametrize(("stride", "last"), [(32, "upscore"), (16, "upscore16"), (8, "upscore8")])
def test_of_an_fcn_only_the_last_deconvolution_stays_bilinear(stride, last):
    config = TrainingConfig("fcn", "d", stride=stride, head_channels=4)
    fcn = built(config, NAMES)
    assert isinstance(fcn, FCN)
    assert (fcn.stride, fcn.head_channels, fcn.dropout) == (stride, 4, 0.5)
    fixed = [name for name, p in fcn.named_parameters() if not p.requires_grad]
    assert fixed == [f"{last}.weight"]


def test_the_seed_decides_the_start():
    def start(seed):
        return built(TrainingConfig("unet", "d", base_channels=2, seed=seed), NAMES).state_dict()

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
    new = built(TrainingConfig("unet", "d", start=str(folder), working_size=96), ["a", "b"])
    assert (new.base_channels, new.dropout, new.working_size) == (3, 0.25, 96)
    assert new.palette == old.palette
    assert all(torch.equal(new.state_dict()[n], old.state_dict()[n]) for n in old.state_dict())


def test_a_start_brings_its_working_size_unless_another_is_named(tmp_path):
    unet = UNet(class_names=["a", "b"], base_channels=2, working_size=96)
    unet.save_pretrained(tmp_path)
    config = TrainingConfig("unet", "d", start=str(tmp_path))
    assert resolve_defaults(config).working_size == 96
    assert resolve_defaults(replace(config, working_size=64)).working_size == 64
    assert resolve_defaults(TrainingConfig("unet", "d")).working_size is None


def test_a_start_of_other_classes_keeps_all_but_the_class_heat_maps(trained):
    folder, old = trained
    new = built(TrainingConfig("unet", "d", start=str(folder), dropout=0.0), ["x", "y", "z"])
    assert (new.class_names, len(new.palette), new.dropout) == (["x", "y", "z"], 3, 0.0)
    before, now = old.state_dict(), new.state_dict()
    anew = {name for name in now if not torch.equal(now[name], before[name])}
    assert anew == {"heatmaps.weight", "heatmaps.bias"}


def test_a_start_of_another_kind_is_refused(trained):
    with pytest.raises(TrainingError, match=r"contains a UNet.*segmodels train unet"):
        built(TrainingConfig("fcn", "d", start=str(trained[0])), ["a", "b"])


def test_the_published_config_names_the_start_without_its_folder(trained):
    assert TrainingConfig("unet", "d", start=str(trained[0])).published()["start"] == "trained"
    assert TrainingConfig("unet", "d", start="org/unet").published()["start"] == "org/unet"


def test_an_option_of_another_network_is_refused():
    with pytest.raises(TrainingError, match=r"--stride, --head-channels: not an option of unet"):
        resolve_defaults(TrainingConfig("unet", "d", stride=16, head_channels=64))


def test_every_option_of_the_network_reaches_it():
    config = TrainingConfig(
        "unet", "d", in_channels=1, padding="valid", batch_norm=False, base_channels=2
    )
    unet = built(config, NAMES)
    assert (unet.in_channels, unet.padding, unet.batch_norm) == (1, "valid", False)
    fcn = TrainingConfig("fcn", "d", reference_padding=True, at_once=False, head_channels=4)
    assert (built(fcn, NAMES).reference_padding, built(fcn, NAMES).at_once) == (True, False)


# ---- classes are carried over by name ----


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("unet", {"base_channels": 2}),
        ("segnet", {"variant": "basic"}),
        ("fcn", {"head_channels": 4, "stride": 8}),
        ("fcn", {"head_channels": 4, "stride": 16}),
    ],
)
def test_classes_in_another_order_give_the_same_scores_in_that_order(network, arguments, tmp_path):
    torch.manual_seed(3)
    kind = {"unet": UNet, "segnet": SegNet, "fcn": FCN}[network]
    old = kind(class_names=["road", "sky", "car"], **arguments).eval()
    for parameter in old.parameters():
        parameter.data.normal_(std=0.05)
    old.save_pretrained(tmp_path)
    config = resolve_defaults(TrainingConfig(network, "d", start=str(tmp_path)))
    new, carried_over = build_network(config, ["car", "tree", "road"])
    assert carried_over.classes == ["car", "road"]
    assert carried_over.new_classes == ["tree"]
    assert carried_over.dropped_classes == ["sky"]
    assert carried_over.new_layers == []
    assert new.palette[0] != new.palette[2]
    reordered, _ = build_network(config, ["car", "road", "sky"])
    assert reordered.palette == [old.palette[i] for i in (2, 0, 1)]
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected, scores = old(pixels), reordered.eval()(pixels)
    torch.testing.assert_close(scores, expected[:, [2, 0, 1]], rtol=1e-4, atol=1e-5)
    assert float(expected.std()) > 0


def test_classes_of_other_names_start_from_fresh_weights_even_if_there_are_as_many(trained):
    folder, old = trained
    config = resolve_defaults(TrainingConfig("unet", "d", start=str(folder)))
    new, carried_over = build_network(config, ["x", "b"])
    assert not torch.equal(new.heatmaps.weight[0], old.heatmaps.weight[0])
    assert torch.equal(new.heatmaps.weight[1], old.heatmaps.weight[1])
    told = carried_over.describe("old")
    assert told == (
        "classes carried over from old: b; randomly initialised classes: x; dropped classes: a"
    )


def test_stages_of_fcn_carry_over_what_the_coarser_one_has(tmp_path):
    torch.manual_seed(0)
    coarse = FCN(class_names=NAMES, stride=32, head_channels=4, at_once=False)
    torch.nn.init.normal_(coarse.score_fr.weight)
    coarse.save_pretrained(tmp_path)
    config = TrainingConfig("fcn", "d", start=str(tmp_path), stride=16)
    model, carried_over = build_network(resolve_defaults(config), NAMES)
    assert (model.stride, model.head_channels, model.at_once) == (16, 4, False)
    assert torch.equal(model.score_fr.weight, coarse.score_fr.weight)
    fresh = ["score_pool4.weight", "score_pool4.bias", "upscore2.weight", "upscore16.weight"]
    assert sorted(carried_over.new_layers) == sorted(fresh)
    assert not model.score_pool4.weight.any()  # section 4.3: the new skip starts at zero


def test_a_start_in_grey_trains_in_grey(tmp_path):
    UNet(class_names=["a", "b"], base_channels=2, in_channels=1).save_pretrained(tmp_path)
    config = resolve_defaults(TrainingConfig("unet", "d", start=str(tmp_path)))
    assert config.in_channels == 1
    model, carried_over = build_network(
        resolve_defaults(replace(config, in_channels=3)), ["a", "b"]
    )
    assert model.in_channels == 3
    assert np.allclose(model.image_mean, [0.485, 0.456, 0.406])
    assert carried_over.new_layers == ["encoder1.0.weight"]
