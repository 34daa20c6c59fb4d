import pytest

from segmodels.utils.palette import COLORS, palette_for, voc_color


# The head of PASCAL VOC's published table, and two entries by hand:
# 21 = 0b010101: r bits 0, 3 = 1, 0; g bits 1, 4 = 0, 1; b bits 2, 5 = 1, 0 -> 128, 64, 128
# 255 = 0b11111111: r bits 0, 3, 6 = 1, 1, 1; g bits 1, 4, 7 = 1, 1, 1; b bits 2, 5 = 1, 1
@pytest.mark.parametrize(
    ("index", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (4, (0, 0, 128)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (21, (128, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_voc_colors_are_those_of_the_published_map(index, color):
    assert voc_color(index) == color


def test_customary_colors_differ_and_are_bytes():
    assert len(set(COLORS.values())) == len(COLORS)
    assert all(value in range(256) for color in COLORS.values() for value in color)
    assert all(name == name.lower() for name in COLORS)


def test_a_known_class_has_its_customary_color_in_any_case():
    assert palette_for(["Sky", "ROAD"]) == [[70, 130, 180], [128, 64, 128]]


def test_unknown_classes_take_the_next_free_voc_colors():
    assert palette_for(["what", "sky", "ever"]) == [[128, 0, 0], [70, 130, 180], [0, 128, 0]]


def test_no_color_is_given_twice():
    # road's customary colour is colour 21 of the VOC map
    names = ["road", "Road", "ROAD", *(f"class {index}" for index in range(252))]
    assert len({tuple(color) for color in palette_for(names)}) == 255


def test_black_background_counts_as_a_color():
    assert palette_for(["background", "cell"]) == [[0, 0, 0], [128, 0, 0]]
