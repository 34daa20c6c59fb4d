import json

import pytest
import torch

from segmodels.fcn import FCN
from segmodels.recipe import Recipe, build_network
from segmodels.segnet import SegNet
from segmodels.unet import UNet

NAMES = ["a", "b", "c"]


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
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_a_value_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"network": "unet", "data": "d", **options})


def test_lists_do_for_tuples():
    recipe = Recipe("unet", "d", crop=[64, 80], zoom=[1, 2])
    assert recipe == Recipe("unet", "d", crop=(64, 80), zoom=(1, 2))


def test_what_is_published_names_no_folder_of_the_machine(tmp_path):
    weights = tmp_path / "vgg.safetensors"
    weights.touch()
    recipe = Recipe("fcn", str(tmp_path / "somewhere" / "camvid"), vgg16=str(weights), epochs=7)
    published = json.loads(json.dumps(recipe.published()))
    assert (published["data"], published["vgg16"]) == ("camvid", "vgg.safetensors")
    assert str(tmp_path) not in json.dumps(published)
    again = Recipe(**published)
    assert again.published() == published
    assert (again.epochs, again.crop) == (7, recipe.crop)
    assert Recipe("fcn", "d", vgg16="org/vgg16").published()["vgg16"] == "org/vgg16"


def test_networks_are_built_as_the_recipe_says():
    unet = build_network(Recipe("unet", "d", base_channels=4, dropout=0.25, working_size=96), NAMES)
    assert isinstance(unet, UNet)
    assert (unet.base_channels, unet.dropout, unet.working_size) == (4, 0.25, 96)
    assert (unet.class_names, unet.encoder) == (NAMES, "plain")
    segnet = build_network(Recipe("segnet", "d", variant="basic"), NAMES)
    assert isinstance(segnet, SegNet)
    assert (segnet.variant, segnet.dropout) == ("basic", 0.0)


@pytest.mark.parametrize(("stride", "last"), [(32, "upscore"), (16, "upscore16"), (8, "upscore8")])
def test_of_an_fcn_only_the_last_deconvolution_stays_bilinear(stride, last):
    recipe = Recipe("fcn", "d", stride=stride, head_channels=4)
    fcn = build_network(recipe, NAMES)
    assert isinstance(fcn, FCN)
    assert (fcn.stride, fcn.head_channels, fcn.dropout) == (stride, 4, 0.5)
    fixed = [name for name, p in fcn.named_parameters() if not p.requires_grad]
    assert fixed == [f"{last}.weight"]


def test_the_seed_decides_the_start():
    def start(seed):
        return build_network(Recipe("unet", "d", base_channels=2, seed=seed), NAMES).state_dict()

    first, second, other = start(1), start(1), start(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["heatmaps.weight"], other["heatmaps.weight"])
