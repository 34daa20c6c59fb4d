"""The page's plots."""

import re

import numpy as np
from PIL import Image

from segmodels import UNet
from segmodels.demo import html
from segmodels.demo.ground_truth import judge
from segmodels.inference.comparison import ModelResult
from segmodels.inference.results import LabeledImage
from tests.support.networks import tiny_network

NAMES, PALETTE = ["road", "<b>sky</b>"], [[1, 2, 3], [4, 5, 6]]


def network(name="unet-camvid"):
    return tiny_network(UNet, name, class_names=NAMES, palette=PALETTE)


def result(network, class_map, seconds=1.25):
    ids = np.array(class_map, np.uint8)
    image = Image.new("RGB", ids.shape[::-1])
    return ModelResult(network, LabeledImage(image, ids, NAMES, PALETTE), seconds)


def rows(html):
    return html.split("<tr")[2:]


def test_areas_are_bars_largest_class_first_and_names_are_escaped():
    first, second = network("a-camvid"), network("b-camvid")
    results = [result(first, [[1, 1, 1, 0]]), result(second, [[1, 1, 0, 0]])]
    sky, road = rows(html.areas_plot([first, second], results))
    assert re.findall(r"<span>(.*?)</span>", sky) == ["75.0 %", "50.0 %"]
    assert re.findall(r"<span>(.*?)</span>", road) == ["25.0 %", "50.0 %"]
    assert "&lt;b&gt;sky&lt;/b&gt;" in sky
    assert "<b>sky" not in sky
    # The longest bar is the largest share's, 75 %: 50 % of the picture is two thirds of it.
    assert re.findall(r'background: ([^;"]*); width: ([^;"]*)%', sky) == [
        ("rgb(4, 5, 6)", "100.0"),
        ("rgb(4, 5, 6)", "66.7"),
    ]


def test_networks_without_a_result_yet_are_waited_for_and_classes_of_none_named_below():
    first, second = network("a-camvid"), network("b-camvid")
    drawn = html.areas_plot([first, second], [result(first, [[0, 0]])])
    assert drawn.count("<td>…</td>") == 1
    assert drawn.endswith("<p>Not found by any network: &lt;b&gt;sky&lt;/b&gt;.</p>")


def test_seconds_and_parameters_are_bars():
    fast, slow = network("fast-camvid"), network("slow-camvid")
    results = [result(slow, [[0]], 7.0), result(fast, [[0]], 0.5)]
    drawn = html.speed_plot(results, {slow.source: (2.0, 3)})
    shown = re.findall(r"<span>(\S+) s, (.*?)</span>", drawn)
    assert shown == [("2.00", "median of 3 warm runs"), ("0.50", "one run")]
    assert "2.00 s, one warm run<" in html.speed_plot(results, {slow.source: (2.0, 1)})
    assert re.findall(r"width: (.*?)%", drawn) == ["100.0", "100.0", "25.0", "100.0"]


def test_iou_has_the_classes_of_the_truth_and_their_mean():
    target = np.array([[0, 0, 255, 0]], np.uint8)
    judgements = [judge(target, NAMES, result(network(), [[0, 0, 0, 1]]))]
    road, mean = rows(html.iou_plot(judgements, NAMES, PALETTE))
    assert "road" in road  # 2 of 3 pixels, none too many
    assert re.findall(r"<span>(.*?)</span>", road) == ["66.7 %"]
    assert re.findall(r"<span>(.*?)</span>", mean) == ["66.7 %"]


def test_notices_are_escaped_and_problems_alert():
    assert html.notice("") == ""
    assert html.notice("<i>") == '<p class="notice" role="status">&lt;i&gt;</p>'
    assert 'role="alert"' in html.notice("no", problem=True)


def test_a_figure_has_an_alternative_text(tmp_path):
    (tmp_path / "a.svg").write_text("<svg></svg>")
    drawn = html.figure(tmp_path / "a.svg", 'a "U"')
    assert 'role="img" aria-label="a &quot;U&quot;"' in drawn
    assert "<svg></svg>" in drawn


def test_a_background_is_listed_last_and_is_not_missed_where_it_is_absent():
    names = ["background", "cat", "dog"]
    unet = tiny_network(UNet, "unet-animals", class_names=names, palette=[[0, 0, 0]] * 3)
    image = Image.new("RGB", (4, 1))
    ids = np.array([[0, 0, 0, 1]], np.uint8)
    found = ModelResult(unet, LabeledImage(image, ids, names, [[0, 0, 0]] * 3), 1.0)
    cat, background = rows(html.areas_plot([unet], [found]))
    assert "cat" in cat
    assert "background" in background
    ids = np.array([[1, 1, 1, 1]], np.uint8)
    found = ModelResult(unet, LabeledImage(image, ids, names, [[0, 0, 0]] * 3), 1.0)
    assert html.areas_plot([unet], [found]).endswith("<p>Not found by any network: dog.</p>")
