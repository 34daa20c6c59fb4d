"""What a visitor takes away."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image

from segmodels.demo import downloads
from segmodels.inference.comparison import ModelFailure, compare, results_of, summary


def test_files_hold_exact_ids_the_overlay_and_the_summary(networks, street, tmp_path):
    answers = [*compare(networks[:2], street), ModelFailure(networks[2], "no memory")]
    paths = downloads.files(tmp_path, "street", "road", answers)
    assert [path.name for path in paths] == [
        "street_fcn-camvid_class-ids.png",
        "street_fcn-camvid_overlay.png",
        "street_unet-camvid_class-ids.png",
        "street_unet-camvid_overlay.png",
        "street_summary.json",
    ]
    for number, answer in enumerate(results_of(answers)):
        with Image.open(paths[2 * number]) as ids, Image.open(paths[2 * number + 1]) as overlay:
            assert np.array_equal(np.array(ids), answer.segmentation.class_map)
            assert ids.getpalette()[:3] == answer.segmentation.palette[0]
            assert overlay.size == (60, 40)
            assert np.array_equal(np.array(overlay), np.array(answer.segmentation.overlay()))
    assert json.loads(paths[-1].read_text()) == summary("road", answers)


def test_the_comparison_is_a_png(networks, street, tmp_path):
    path = downloads.comparison_file(tmp_path, "street", list(compare(networks[:3], street)))
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 1600)


def test_the_code_makes_the_same_class_ids(networks, street, tmp_path, monkeypatch):
    for network in networks[:3]:
        network.model.save_pretrained(tmp_path / network.source)
    code = downloads.snippet(networks[:3], street)
    assert 'FCN.from_pretrained("weights_card/fcn-camvid")' in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {})
    for answer in compare(networks[:3], street):
        with Image.open(tmp_path / f"{answer.network.name}.png") as ids:
            assert np.array_equal(np.array(ids), answer.segmentation.class_map)


def test_the_code_tells_no_folders_of_the_server(networks):
    inside = replace(networks[0], source="/srv/secret/weights_card/fcn-camvid")
    assert downloads.public_source(inside) == "weights_card/fcn-camvid"
    assert downloads.public_source(replace(inside, source="org/fcn")) == "org/fcn"
