"""Several networks on one image, and the maps that compare their answers."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segmodels import FCN, CheckpointError, PictureError, SegNet, UNet
from segmodels.inference import comparison, decoded_image
from tests.support.networks import tiny_network

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
    assert [network.title for network in networks] == ["FCN-16s", "U-Net", "U-Net", "SegNet-Basic"]


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


def test_two_models_of_one_name_are_told_apart(folder, tmp_path, monkeypatch):
    for place in ("orgA/net", "orgB/net", "other"):
        UNet(class_names=NAMES, base_channels=1).save_pretrained(tmp_path / place)
    monkeypatch.chdir(tmp_path / "other")
    sources = [str(tmp_path / "orgA/net"), str(tmp_path / "orgB/net"), ".", "."]
    served = comparison.load_networks(sources, "cpu")
    assert [network.name for network in served] == ["orgA/net", "orgB/net", "other"]
    assert [network.source for network in served] == sources[:3]


def test_an_image_is_decoded_and_resized_once_for_all_networks(tmp_path, monkeypatch):
    served = [tiny_network(UNet, name, working_size=24) for name in ("a", "b", "c")]
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    calls = []
    for name in ("read_image", "resize_image", "file_digest"):
        original = getattr(decoded_image, name)

        def recorded(*arguments, name=name, original=original, **options):
            calls.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(decoded_image, name, recorded)
    assert len(comparison.results_of(list(comparison.compare(served, tmp_path / "a.png")))) == 3
    assert sorted(calls) == ["file_digest", "read_image", "resize_image"]


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

    broken.model = networks[1].model
    failing = replace(networks[1], segmenter=broken)
    picture = np.zeros((20, 30, 3), np.uint8)
    first, failure, last = comparison.compare([networks[0], failing, networks[3]], picture)
    assert failure == comparison.ModelFailure(failing, "MemoryError: out of memory")
    assert first.segmentation.class_map.shape == last.segmentation.class_map.shape == (20, 30)
    assert "unet-camvid failed on an image of 30 x 20 pixels" in caplog.text

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
    assert comparison.summary("road", results)["agreement"] is None  # they cannot agree
    assert comparison.summary("road", results[:1])["agreement"] is None


def test_networks_of_other_classes_have_scenes_of_their_own(tmp_path):
    names = {"a-camvid": ["road", "sky"], "b-camvid": ["sky", "road"], "c-camvid": ["cell", "gap"],
             "d": ["gap", "cell"], "e": ["vessel", "gap"]}  # fmt: skip
    for name, class_names in names.items():
        UNet(class_names=class_names, base_channels=1).save_pretrained(tmp_path / name)
    served = comparison.load_networks([str(tmp_path / name) for name in names], "cpu")
    assert [network.scene for network in served] == ["road", "road", "own", "own", "own-2"]


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


def ids(*values):
    return np.array([values], np.uint8)


def test_agreement_is_the_share_on_which_all_agree():
    a, b, c = ids(0, 1, 2, 2), ids(0, 1, 2, 1), ids(0, 2, 2, 1)
    assert comparison.agreement([a, b, c]) == 2 / 4  # the first and the third pixel
    assert comparison.agreement([a, b]) == 3 / 4
    assert comparison.agreement([a]) == 1.0


def test_the_map_of_disagreement_names_the_one_that_differs():
    a = ids(7, 1, 2, 3, 1)
    b = ids(7, 2, 1, 3, 2)
    c = ids(7, 2, 2, 4, 3)
    # All agree; a differs; b differs; c differs; all differ.
    assert comparison.disagreement([a, b, c]).tolist() == [[0, 1, 2, 3, 4]]


def test_of_two_that_differ_neither_is_the_one_that_differs():
    assert comparison.disagreement([ids(1, 1), ids(1, 2)]).tolist() == [[0, 3]]
    assert comparison.disagreement([ids(1, 1)]).tolist() == [[0, 0]]


def test_disagreement_is_that_of_counting_pixel_by_pixel():
    random = np.random.default_rng(0)
    four = [random.integers(0, 3, (9, 11), np.uint8) for _ in range(4)]
    found = comparison.disagreement(four)
    for y, x in np.ndindex(9, 11):
        values = [int(one[y, x]) for one in four]
        alone = [k for k in range(4) if len(set(values[:k] + values[k + 1 :])) == 1]
        expected = 0 if len(set(values)) == 1 else alone[0] + 1 if alone else 5
        assert found[y, x] == expected


def test_common_ids_compare_classes_by_name():
    names, (first, second) = comparison.common_ids(
        [ids(0, 1, 2), ids(0, 1, 0)], [["road", "sky", "car"], ["car", "road"]]
    )
    assert names == ["road", "sky", "car"]
    assert first.tolist() == [[0, 1, 2]]
    assert second.tolist() == [[2, 0, 2]]


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(ValueError, match="at most 255 different classes"):
        comparison.common_ids(
            [ids(0)] * 2, [[str(i) for i in range(200)], [f"b{i}" for i in range(56)]]
        )


def test_errors_leave_void_unjudged():
    assert comparison.errors(ids(0, 1, 255), ids(0, 2, 1)).tolist() == [[0, 1, 2]]


def test_quantised_numbers_are_rounded_and_clipped():
    # 0.5 * 255 = 127.5, to the even 128; 0.03 of 0.02 is beyond.
    assert comparison.quantised(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert comparison.quantised(np.array([0.01, 0.03]), 0.02).tolist() == [128, 255]
