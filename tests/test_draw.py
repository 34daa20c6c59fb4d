"""The page's visual parts."""

import re

import numpy as np
import pytest

from segmodels import Segmentation, Segmenter, UNet, draw
from segmodels.compare import Network, Result


def network(name="unet-camvid", class_names=("road", "<b>sky</b>")):
    model = UNet(class_names=list(class_names), base_channels=2, palette=[[1, 2, 3], [4, 5, 6]])
    return Network(name, "road", Segmenter(model, "cpu"))


def result(network, class_map):
    ids = np.array(class_map, np.uint8)
    model = network.segmenter.model
    picture = np.zeros((*ids.shape, 3), np.uint8)
    ones = np.ones(ids.shape, np.float32)
    return Result(network, Segmentation(picture, ids, ones, model.class_names, model.palette), 1.25)


def test_the_legend_has_every_class_with_its_colour_and_escapes_names():
    html = draw.legend(network().segmenter.model)
    assert re.findall(r"rgb\((\d+), (\d+), (\d+)\)", html) == [("1", "2", "3"), ("4", "5", "6")]
    assert "&lt;b&gt;sky&lt;/b&gt;" in html
    assert "<b>sky" not in html


def test_areas_are_in_the_table_largest_class_first():
    first, second = network("a-camvid"), network("b-camvid")
    results = [result(first, [[1, 1, 1, 0]]), result(second, [[1, 1, 0, 0]])]
    rows = draw.areas_table([first, second], results).split("<tr")[2:]
    assert re.findall(r"<td>(.*?)</td>", rows[0]) == ["75.0 %", "50.0 %"]
    assert re.findall(r"<td>(.*?)</td>", rows[1]) == ["25.0 %", "50.0 %"]
    assert "sky" in rows[0]
    # The maps differ in one pixel of four.
    assert "75.0 %</strong> of it" in draw.areas_table([first, second], results)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "-"), (1, "&lt; 0.1 %"), (2, "0.1 %"), (2000, "100.0 %")]
)
def test_small_shares_are_not_shown_as_none(count, text):
    ids = np.zeros((1, 2000), np.uint8)
    ids[0, :count] = 1
    unet = network()
    row = next(r for r in draw.areas_table([unet], [result(unet, ids)]).split("<tr") if "sky" in r)
    assert re.findall(r"<td>(.*?)</td>", row) == [text]


def test_networks_without_a_result_yet_are_waited_for_and_absent_classes_faint():
    first, second = network("a-camvid"), network("b-camvid")
    html = draw.areas_table([first, second], [result(first, [[1, 1]])])
    assert html.count("<td>…</td>") == 2
    assert html.count('class="absent"') == 1


def test_the_caption_gives_seconds_once_there_are_any():
    unet = network()
    millions = sum(p.numel() for p in unet.segmenter.model.parameters()) / 1e6
    assert draw.caption(unet, None) == f'<p class="caption">{millions:.1f} M parameters</p>'
    assert "<strong>1.25 s</strong> on the CPU" in draw.caption(unet, 1.25)
