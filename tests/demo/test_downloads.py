"""The downloads of a comparison."""

import json
import zipfile
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from segmodels.demo import downloads
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    compare,
    results_of,
    summary,
)
from segmodels.inference.results import LabeledImage, read_metadata

# ---- files ----


def test_files_hold_exact_ids_the_overlay_the_classes_and_the_summary(networks, street, tmp_path):
    answers = [*compare(networks[:2], street), ModelFailure(networks[2], "no memory")]
    archive, *paths = downloads.files(tmp_path, "street", "road", answers)
    assert [path.name for path in paths] == [
        "street_fcn-camvid.png",
        "street_fcn-camvid_overlay.png",
        "street_unet-camvid.png",
        "street_unet-camvid_overlay.png",
        "street_classes.json",
        "street_summary.json",
        "street_comparison.png",
    ]
    for number, answer in enumerate(results_of(answers)):
        with Image.open(paths[2 * number]) as ids, Image.open(paths[2 * number + 1]) as overlay:
            assert np.array_equal(np.array(ids), answer.segmentation.class_map)
            assert ids.getpalette()[:3] == answer.segmentation.palette[0]
            assert overlay.size == (60, 40)
            assert np.array_equal(np.array(overlay), np.array(answer.segmentation.overlay()))
    assert json.loads(paths[5].read_text()) == summary("road", answers)
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == [path.name for path in paths]
        assert all(opened.read(path.name) == path.read_bytes() for path in paths)


def test_ids_are_explained_beside_the_class_maps_and_inside_of_them(networks, street, tmp_path):
    networks[0].model.save_pretrained(tmp_path / "fcn")
    local = replace(networks[0], source=str(tmp_path / "fcn"))
    hub = replace(networks[1], source="org/unet", revision="0123abcd")
    answers = list(compare([local, hub], street))
    paths = {path.name: path for path in downloads.files(tmp_path, "a", "road", answers)}
    classes = json.loads(paths["a_classes.json"].read_text())
    weights = sha256((tmp_path / "fcn/model.safetensors").read_bytes()).hexdigest()
    assert classes["fcn-camvid"]["revision"] == f"sha256:{weights}"
    assert classes["unet-camvid"]["model"] == "org/unet"
    assert classes["unet-camvid"]["revision"] == "0123abcd"
    model = networks[1].model
    assert classes["unet-camvid"]["classes"] == [
        {"id": number, "name": name, "color": color}
        for number, (name, color) in enumerate(zip(model.class_names, model.palette, strict=True))
    ]
    metadata = read_metadata(paths["a_unet-camvid.png"])
    assert json.loads(metadata["classes"]) == classes["unet-camvid"]["classes"]
    assert (metadata["model"], metadata["revision"]) == ("org/unet", "0123abcd")


# ---- code ----


def test_the_code_computes_the_same_class_maps(networks, street, tmp_path, monkeypatch):
    for network in networks[:3]:
        network.model.save_pretrained(tmp_path / network.source)
    code = downloads.snippet(networks[:3], street)
    assert 'FCN.from_pretrained("weights_card/fcn-camvid")' in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {})
    for answer in compare(networks[:3], street):
        with Image.open(tmp_path / f"{answer.network.name}.png") as ids:
            assert np.array_equal(np.array(ids), answer.segmentation.class_map)


def test_the_code_names_no_folders_of_the_server(networks):
    inside = replace(networks[0], source="/srv/secret/weights_card/fcn-camvid")
    assert downloads.public_source(inside) == "weights_card/fcn-camvid"
    assert downloads.public_source(replace(inside, source="org/fcn")) == "org/fcn"


# ---- one image to share ----


def results(networks, height, width, num_networks=3):
    """Masks of one class each, over a grey image."""
    image = Image.new("RGB", (width, height), (120, 120, 120))
    answers = []
    for number, network in enumerate(networks[:num_networks]):
        ids = np.full((height, width), number, np.uint8)
        model = network.model
        segmentation = LabeledImage(image, ids, model.class_names, model.palette)
        answers.append(ModelResult(network, segmentation, 1.0))
    return answers


@pytest.mark.parametrize(
    ("size", "columns"), [((60, 90), 2), ((90, 60), 4), ((50, 50), 4), ((20, 100), 1)]
)
def test_wide_images_have_two_columns_upright_ones_stand_in_a_row(networks, size, columns):
    first = results(networks, *size)[0].segmentation
    assert downloads.columns_for(first, 4) == columns
    image = downloads.comparison_image(results(networks, *size))
    # The columns fill the width, but for less than a pixel each.
    assert downloads.WIDTH - columns < image.width <= downloads.WIDTH
    # Every tile is there: the rows of four tiles in so many columns, at the image's proportions.
    style = downloads.STYLE
    width = (downloads.WIDTH - 2 * style.margin - (columns - 1) * style.gap) // columns
    assert image.height > 4 // columns * round(width * size[0] / size[1])


def test_the_image_and_each_overlay_are_shown(networks):
    answers = results(networks, 60, 90)
    sheet = np.array(downloads.comparison_image(answers, opacity=1.0))
    colors = [[120, 120, 120], *(answers[i].segmentation.palette[i] for i in range(3))]
    for row, column, color in zip((0, 0, 1, 1), (0, 1, 0, 1), colors, strict=True):
        y = round((0.27 + 0.46 * row) * sheet.shape[0])
        x = round((0.25 + 0.5 * column) * sheet.shape[1])
        assert sheet[y, x].tolist() == list(color)


def test_the_legend_has_the_classes_that_are_there_but_no_background():
    names = ["background", *(f"class {i}" for i in range(4))]
    ids = np.array([[0, 0, 0, 2, 2, 1]], np.uint8)
    palette = [[i, i, i] for i in range(5)]
    image = LabeledImage(Image.new("RGB", (6, 1)), ids, names, palette)
    assert downloads.legend_entries([image]) == [("class 1", (2, 2, 2)), ("class 0", (1, 1, 1))]


def test_one_network_and_extreme_images_are_drawn_too(networks):
    assert downloads.comparison_image(results(networks, 1, 1, 1)).width > 100
    tall = downloads.comparison_image(results(networks, 3000, 1))
    assert tall.height < 10_000
