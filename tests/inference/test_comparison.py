"""Several networks on one picture."""

from dataclasses import replace

import numpy as np
import pytest

from segmodels import FCN, CheckpointError, PictureError, SegNet, UNet
from segmodels.inference import comparison

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
    return comparison.load_networks(comparison.served_sources(folder), "cpu")


def test_folders_are_served_in_the_order_of_publication(networks):
    names = [network.name for network in networks]
    assert names == ["fcn-camvid", "unet-camvid", "unet-msrc", "segnet-camvid"]
    assert [network.title for network in networks] == ["FCN-16s", "U-Net", "U-Net", "SegNet"]


def test_scenes_follow_from_the_data_sets(networks):
    scenes = comparison.by_scene(networks)
    assert {scene: len(group) for scene, group in scenes.items()} == {"road": 3, "everyday": 1}


def test_the_environment_names_other_networks(folder, monkeypatch):
    wanted = f" {folder / 'unet-msrc'}, org/name ,"
    monkeypatch.setenv("SEGMODELS_MODELS", wanted)
    assert comparison.served_sources(folder) == [str(folder / "unet-msrc"), "org/name"]


def test_nothing_to_serve_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SEGMODELS_MODELS", raising=False)
    with pytest.raises(CheckpointError, match=r"no network to serve.*SEGMODELS_MODELS"):
        comparison.served_sources(tmp_path / "missing")


def test_each_network_answers_as_it_would_alone(networks):
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    results = list(comparison.compare(networks[:2], picture))
    for network, result in zip(networks, results, strict=False):
        assert result.network is network
        assert result.seconds > 0
        assert np.array_equal(result.segmentation.class_map, network.segmenter(picture).class_map)


def test_what_is_no_picture_or_too_large_is_refused_before_any_network_runs(networks, tmp_path):
    with pytest.raises(PictureError, match="there is no file"):
        next(comparison.compare(networks, tmp_path / "missing.png"))
    with pytest.raises(PictureError, match="megapixels"):
        next(comparison.compare(networks, np.zeros((10, 10), np.uint8), max_pixels=99))


def test_a_network_that_fails_leaves_the_others_their_answers(networks, caplog):
    def broken(picture):
        raise MemoryError("out of memory")

    failing = replace(networks[1], segmenter=broken)
    picture = np.zeros((20, 30, 3), np.uint8)
    first, failure, last = comparison.compare([networks[0], failing, networks[3]], picture)
    assert failure == comparison.Failure(failing, "MemoryError: out of memory")
    assert first.segmentation.class_map.shape == last.segmentation.class_map.shape == (20, 30)
    assert "unet-camvid failed on a picture of shape (20, 30, 3)" in caplog.text

    summary = comparison.summary("road", [first, failure, last])
    assert summary["models"]["unet-camvid"] == {"error": "MemoryError: out of memory"}
    same = first.segmentation.class_map == last.segmentation.class_map
    assert summary["agreement"] == same.mean()
    nothing = comparison.summary("road", [failure])
    assert nothing["size"] is nothing["agreement"] is None


def test_networks_of_other_classes_are_compared_by_their_names(networks):
    road, everyday = networks[0], networks[2]  # road, sky, car and cat, dog
    picture = np.zeros((4, 4, 3), np.uint8)
    results = list(comparison.compare([road, everyday], picture))
    first, second = comparison.comparable(results)
    assert np.array_equal(first, results[0].segmentation.class_map)
    assert np.array_equal(second, results[1].segmentation.class_map + 3)
    assert comparison.summary("road", results)["agreement"] == 0.0


def test_the_summary_holds_what_the_maps_say(networks):
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    results = list(comparison.compare(networks[:2], picture))
    summary = comparison.summary("road", results)
    maps = [result.segmentation.class_map for result in results]
    assert summary["scene"] == "road"
    assert summary["size"] == [30, 20]
    assert summary["agreement"] == (maps[0] == maps[1]).mean()
    fcn = summary["models"]["fcn-camvid"]
    assert fcn["areas"]["sky"] == (maps[0] == 1).mean()
    assert fcn["seconds"] == results[0].seconds
    model = networks[0].segmenter.model
    assert fcn["parameters"] == sum(p.numel() for p in model.parameters())
