"""The comparison as one picture."""

import numpy as np
import pytest
from PIL import Image

from segmodels.demo import share
from segmodels.inference.comparison import ModelResult
from segmodels.inference.results import LabeledImage


def results(networks, height, width, num_networks=3):
    """Masks of one class each, over a grey picture."""
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
def test_wide_pictures_have_two_columns_upright_ones_stand_in_a_row(networks, size, columns):
    first = results(networks, *size)[0].segmentation
    assert share.columns_for(first, 4) == columns
    image = share.comparison_picture(results(networks, *size))
    assert image.width == share.WIDTH
    # Every tile is there: the rows of four tiles in so many columns, at the picture's proportions.
    width = (share.WIDTH - 2 * share.MARGIN - (columns - 1) * share.GAP) // columns
    assert image.height > 4 // columns * round(width * size[0] / size[1])


def test_the_picture_and_each_overlay_are_pasted_where_their_titles_are(networks):
    answers = results(networks, 60, 90)
    image = np.array(share.comparison_picture(answers, opacity=1.0))
    width = (share.WIDTH - 2 * share.MARGIN - share.GAP) // 2
    row = round(width * 60 / 90) + share.LABEL_SIZE + 2 * share.GAP
    top = share.MARGIN + 2 * share.TITLE_SIZE + share.LABEL_SIZE + share.GAP // 2
    colors = [[120, 120, 120], *(answers[i].segmentation.palette[i] for i in range(3))]
    for number, color in enumerate(colors):
        x = share.MARGIN + number % 2 * (width + share.GAP) + width // 2
        y = top + number // 2 * row + 50
        assert image[y, x].tolist() == list(color)


def test_the_legend_has_the_classes_that_are_there_and_breaks_into_lines():
    names = [f"a class of a long name {i}" for i in range(12)] + ["absent"]
    ids = np.arange(12, dtype=np.uint8)[None]
    palette = [[i, i, i] for i in range(13)]
    lines = share.legend_lines([LabeledImage(Image.new("RGB", (12, 1)), ids, names, palette)])
    assert [name for line in lines for name, _, _ in line] == names[:-1]
    assert len(lines) > 1
    for line in lines:
        name, _, left = line[-1]
        right = left + share.LABEL_SIZE + 10 + share.font(share.SMALL_SIZE).getlength(name)
        assert right <= share.WIDTH - share.MARGIN


def test_one_network_and_extreme_pictures_are_drawn_too(networks):
    assert share.comparison_picture(results(networks, 1, 1, 1)).width == share.WIDTH
    tall = share.comparison_picture(results(networks, 3000, 1))
    assert tall.height < 10_000
