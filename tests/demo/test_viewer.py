"""What the browser's viewer is given."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from segmodels import UNet
from segmodels.demo import strings, viewer
from segmodels.demo.ground_truth import judge
from segmodels.inference.comparison import ModelFailure, ModelResult, compare
from segmodels.inference.results import LabeledImage
from tests.support.networks import tiny_network
from tests.support.panels import unpacked


def result(network, class_map):
    ids = np.array(class_map, np.uint8)
    model = network.model
    image = Image.new("RGB", ids.shape[::-1])
    return ModelResult(network, LabeledImage(image, ids, model.class_names, model.palette), 1.25)


def test_large_pictures_are_shown_smaller_and_small_ones_as_they_are():
    url = viewer.image_url(Image.new("RGB", (4000, 1000)))
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) as i:
        assert i.size == (1280, 320)
    small = np.zeros((5, 7), np.uint8)
    assert viewer.display(small) is small
    assert set(np.unique(viewer.display(np.eye(2000, dtype=np.uint8) * 9))) <= {0, 9}  # no new ids


def test_a_comparison_shows_what_is_there_and_what_runs_and_waits(networks):
    three = networks[:3]
    answers = list(compare(three, np.zeros((20, 30, 3), np.uint8)))
    started = viewer.comparison("url", (20, 30), three, [])
    assert [panel["state"] for panel in started["panels"]] == ["running", "waiting", "waiting"]
    assert started["status"] == "FCN-8s is running, 1 of 3 …"
    view = viewer.comparison("url", (20, 30), three, answers[:2])
    assert [panel["state"] for panel in view["panels"]] == ["ready", "ready", "running"]
    assert view["size"] == [30, 20]
    panel = view["panels"][1]
    assert np.array_equal(unpacked(panel), answers[1].segmentation.class_map)
    assert panel["colors"] == [[*color, 255] for color in three[1].model.palette]
    assert panel["alt"].startswith("Classes predicted by U-Net, by area: ")
    assert " s on the CPU, one run · " in panel["caption"]
    assert "of the image" in viewer.comparison("url", (20, 30), three, answers)["status"]


def test_a_failed_network_says_so_in_its_own_panel(networks):
    failure = ModelFailure(networks[0], "RuntimeError: no memory")
    panels = viewer.comparison("url", (2, 2), networks[:2], [failure])["panels"]
    assert [panel["state"] for panel in panels] == ["failed", "running"]
    assert "This network failed" in panels[0]["note"]
    assert "RuntimeError" not in str(panels[0])
    assert panels[0]["maps"] == []


def test_the_legend_has_each_class_once_with_its_id_in_each_network(networks):
    legend = viewer.class_legend([networks[0], networks[3]])  # road, sky, car; cat, dog, sky
    assert {entry["name"]: entry["ids"] for entry in legend} == {
        "road": [[0], []],
        "sky": [[1], [2]],
        "car": [[2], []],
        "cat": [[], [0]],
        "dog": [[], [1]],
    }


def test_a_class_of_two_colours_is_there_with_both():
    first = tiny_network(UNet, "a", class_names=["sky"], palette=[[1, 2, 3]])
    second = tiny_network(UNet, "b", class_names=["sky"], palette=[[4, 5, 6]])
    legend = viewer.class_legend([first, second])
    assert [(entry["name"], entry["color"]) for entry in legend] == [
        ("sky (a)", [1, 2, 3]),
        ("sky (b)", [4, 5, 6]),
    ]


def test_panels_of_one_title_are_numbered():
    titles = [viewer.panel(title)["title"] for title in ("U-Net", "SegNet", "U-Net")]
    assert titles == ["U-Net", "SegNet", "U-Net"]
    named = viewer.unique_titles([viewer.panel(title) for title in titles])
    assert [panel["title"] for panel in named] == ["U-Net", "SegNet", "U-Net (2)"]


def test_agreement_has_a_colour_and_a_share_for_each_case(networks):
    results = [
        result(network, ids)
        for network, ids in zip(
            networks, ([[0, 1, 1, 0]], [[0, 0, 1, 1]], [[0, 0, 1, 2]]), strict=False
        )
    ]
    view = viewer.agreement_view("url", (1, 4), results)
    assert unpacked(view["panels"][0]).tolist() == [[0, 1, 0, 4]]
    assert [entry["name"] for entry in view["legend"]] == [
        "all agree: 50.0 %",
        "only FCN-8s disagrees: 25.0 %",
        "only U-Net disagrees: -",
        "only SegNet-Basic disagrees: -",
        "all differ: 25.0 %",
    ]
    colors = {tuple(entry["color"]) for entry in view["legend"]}
    assert len(colors) == 5


def test_two_networks_agree_or_differ(networks):
    results = [result(networks[0], [[0, 1]]), result(networks[1], [[0, 0]])]
    view = viewer.agreement_view("url", (1, 2), results)
    assert [(e["name"], e["ids"]) for e in view["legend"]] == [
        ("all agree: 50.0 %", [[0]]),
        ("all differ: 50.0 %", [[3]]),
    ]


def test_heat_maps_are_the_confidence_and_each_class(networks):
    probabilities = np.array([[[0.2, 1.0]], [[0.7, 0.0]], [[0.1, 0.0]]], np.float32)
    panel = viewer.heat_panel(networks[0], probabilities, ["confidence", "sky", "cat"])
    # 0.7 * 255 = 178.5, to the even 178.
    assert unpacked(panel, 0).tolist() == [[178, 255]]
    assert unpacked(panel, 1).tolist() == [[178, 0]]
    assert unpacked(panel, 2).tolist() == [[0, 0]]  # this network knows no cat
    assert panel["names"] == [
        "mean probability of confidence: 85.0 %",
        "mean probability of sky: 35.0 %",
        "mean probability of cat: -",
    ]
    assert panel["caption"] == "mean confidence 85.0 %"
    assert len(panel["colors"]) == 256
    assert panel["colors"][0][:3] == viewer.SCALE[0]
    assert panel["colors"][255][:3] == viewer.SCALE[-1]


def test_uncertainty_is_shown_as_a_deviation(networks):
    variance = np.array([[0.0, viewer.HIGHEST_DEVIATION**2, 1.0]], np.float32)
    panel = viewer.uncertainty_panel(networks[0], variance, 8)
    assert unpacked(panel).tolist() == [[0, 255, 255]]
    assert panel["caption"].endswith("over 8 samples")


def test_errors_stand_beside_the_truth(networks):
    target = np.array([[0, 1, 255]], np.uint8)
    answer = result(networks[0], [[0, 2, 0]])
    judgement = judge(target, ["road", "sky", "car"], answer)
    truth_ = viewer.Truth(target, ["road", "sky", "car"], [[1, 1, 1]] * 3)
    view = viewer.error_view("url", truth_, [judgement])
    truth, errors = view["panels"]
    assert unpacked(truth).tolist() == [[0, 1, 255]]
    assert unpacked(errors).tolist() == [[0, 1, 2]]
    assert errors["caption"] == "mean IoU 50.0 % · 50.0 % of the pixels right"
    assert [entry["ids"] for entry in view["legend"]] == [[[], [0]], [[], [1]], [[], [2]]]


def test_growing_views_fill_one_panel_after_the_other():
    panels = (viewer.panel(title, [np.zeros((1, 1), np.uint8)]) for title in "ab")
    states = [
        [panel["state"] for panel in view["panels"]]
        for view in viewer.stream_view("url", (1, 1), ["a", "b"], panels)
    ]
    assert states == [["running", "waiting"], ["ready", "running"], ["ready", "ready"]]


@pytest.mark.parametrize(("share", "text"), [(0, "-"), (0.0004, "< 0.1 %"), (0.0012, "0.1 %")])
def test_small_shares_are_not_shown_as_none(share, text):
    assert strings.percent(share) == text


def test_the_legend_knows_each_classs_share_of_each_answer(networks):
    answers = [result(networks[0], [[0, 0, 0, 1]]), ModelFailure(networks[1], "no memory")]
    road, sky, car = viewer.class_legend(networks[:3], answers)
    assert road["shares"] == [0.75, None, None]
    assert sky["shares"] == [0.25, None, None]
    assert car["shares"] == [0.0, None, None]
    assert {entry["group"] for entry in (road, sky, car)} == {"road", "sky", "car"}


def test_a_background_shows_the_image():
    names = ["background", "cat"]
    unet = tiny_network(UNet, "unet-animals", class_names=names, palette=[[0, 0, 0], [9, 9, 9]])
    panel = viewer.answer_panel(result(unet, [[0, 1]]))
    assert panel["colors"] == [[0, 0, 0, 0], [9, 9, 9, 255]]
    assert panel["safe_colors"][0][3] == 0
    assert "background" not in panel["alt"]


def test_networks_that_can_be_compared_have_a_view_of_their_disagreement(networks):
    one, two = (viewer.comparison("url", (2, 2), networks[:n], [])["views"] for n in (1, 2))
    assert "disagreement" not in one
    assert "disagreement" in two
