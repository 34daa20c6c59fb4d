"""Several networks on one picture."""

import numpy as np
import pytest

from segmodels import FCN, CheckpointError, PictureError, SegNet, UNet, compare

NAMES = ["road", "sky", "car"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three small networks as weights_card/ has them, and one for another scene."""
    root = tmp_path_factory.mktemp("weights")
    for name, model in (
        ("segnet-camvid", SegNet(class_names=NAMES, variant="basic")),
        ("fcn-camvid", FCN(class_names=NAMES, head_channels=8, stride=16)),
        ("unet-camvid", UNet(class_names=NAMES, base_channels=4)),
        ("unet-msrc", UNet(class_names=["cat", "dog"], base_channels=4)),
    ):
        model.save_pretrained(root / name)
    (root / "notes").mkdir()
    return root


@pytest.fixture(scope="module")
def networks(folder):
    return compare.load_networks(compare.served_sources(folder), "cpu")


def test_folders_are_served_in_the_order_of_publication(networks):
    names = [network.name for network in networks]
    assert names == ["fcn-camvid", "unet-camvid", "unet-msrc", "segnet-camvid"]
    assert [network.title for network in networks] == ["FCN-16s", "U-Net", "U-Net", "SegNet"]


def test_scenes_follow_from_the_data_sets(networks):
    scenes = compare.by_scene(networks)
    assert {scene: len(group) for scene, group in scenes.items()} == {"road": 3, "everyday": 1}


def test_the_environment_names_other_networks(folder, monkeypatch):
    wanted = f" {folder / 'unet-msrc'}, org/name ,"
    monkeypatch.setenv("SEGMODELS_MODELS", wanted)
    assert compare.served_sources(folder) == [str(folder / "unet-msrc"), "org/name"]


def test_nothing_to_serve_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SEGMODELS_MODELS", raising=False)
    with pytest.raises(CheckpointError, match=r"no network to serve.*SEGMODELS_MODELS"):
        compare.served_sources(tmp_path / "missing")


def test_each_network_answers_as_it_would_alone(networks):
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    results = list(compare.compare(networks[:2], picture))
    for network, result in zip(networks, results, strict=False):
        assert result.network is network
        assert result.seconds > 0
        assert np.array_equal(result.segmentation.class_map, network.segmenter(picture).class_map)


def test_what_is_no_picture_or_too_large_is_refused_before_any_network_runs(networks, tmp_path):
    with pytest.raises(PictureError, match="there is no file"):
        next(compare.compare(networks, tmp_path / "missing.png"))
    with pytest.raises(PictureError, match="megapixels"):
        next(compare.compare(networks, np.zeros((10, 10), np.uint8), max_pixels=99))


def test_agreement_is_the_share_on_which_all_agree():
    a, b, c = np.array([[0, 1, 2, 2]]), np.array([[0, 1, 2, 1]]), np.array([[0, 2, 2, 1]])
    assert compare.agreement([a, b, c]) == 2 / 4  # the first and the third pixel
    assert compare.agreement([a, b]) == 3 / 4
    assert compare.agreement([a]) == 1.0


def test_the_summary_holds_what_the_maps_say(networks):
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    results = list(compare.compare(networks[:2], picture))
    summary = compare.summary("road", results)
    maps = [result.segmentation.class_map for result in results]
    assert summary["scene"] == "road"
    assert summary["size"] == [30, 20]
    assert summary["agreement"] == (maps[0] == maps[1]).mean()
    fcn = summary["models"]["fcn-camvid"]
    assert fcn["areas"]["sky"] == (maps[0] == 1).mean()
    assert fcn["seconds"] == results[0].seconds
    model = networks[0].segmenter.model
    assert fcn["parameters"] == sum(p.numel() for p in model.parameters())
