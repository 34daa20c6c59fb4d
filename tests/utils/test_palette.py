"""The colours, and how well colour-blind readers tell them apart by an independent measure."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms

from segmodels.utils.palette import COLORS, SAFE_COLORS, palette_for, safe_palette, voc_color

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
BLACK = (0, 0, 0)  # a background's
ROAD = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
CAMVID = [*ROAD, "pedestrian", "bicyclist"]


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


def test_conventional_colors_differ_and_are_bytes():
    assert len(set(COLORS.values())) == len(COLORS)
    assert all(value in range(256) for color in COLORS.values() for value in color)
    assert all(name == name.lower() for name in COLORS)


def test_a_known_class_has_its_conventional_color_in_any_case():
    assert palette_for(["Sky", "ROAD"]) == [[70, 130, 180], [128, 64, 128]]


def test_unknown_classes_take_the_next_of_the_safe_colors():
    first, second = map(list, SAFE_COLORS[:2])
    assert palette_for(["what", "sky", "ever"]) == [first, [70, 130, 180], second]


def test_no_color_is_given_twice():
    # road's conventional colour is colour 21 of the VOC map
    names = ["road", "Road", "ROAD", *(f"class {index}" for index in range(252))]
    assert len({tuple(color) for color in palette_for(names)}) == 255


def test_black_background_counts_as_a_color():
    assert palette_for(["background", "cell"]) == [[0, 0, 0], list(SAFE_COLORS[0])]


def least_difference(colors, sight):
    """Distance in CIELAB (1976) of the two colours that are most alike."""
    encoded = np.array(colors) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(SIGHT[sight]).T).clip(0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    image = Image.fromarray(np.rint(255 * srgb).astype(np.uint8)[None])
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = np.array(ImageCms.applyTransform(image, to_lab))[0].astype(float)
    lab[:, 0] /= 2.55
    lab[:, 1:] -= 256 * (lab[:, 1:] > 127)  # signed bytes
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("sight", SIGHT)
def test_the_safe_colors_are_told_apart_by_everybody(sight):
    assert least_difference([BLACK, *SAFE_COLORS[:12]], sight) > 18
    assert least_difference([BLACK, *SAFE_COLORS], sight) > 9


def test_the_conventional_colors_of_camvid_are_not():
    assert least_difference(palette_for(CAMVID), "deuteranopia") < 10


@pytest.mark.parametrize("sight", SIGHT)
def test_classes_of_an_own_dataset_get_colors_that_everybody_tells_apart(sight):
    names = ["background", *(f"class {number}" for number in range(12))]
    assert least_difference(palette_for(names), sight) > 18


def test_a_safe_palette_has_a_color_a_class_and_black_for_the_background():
    palette = safe_palette(["background", *(f"class {number}" for number in range(254))])
    assert palette[0] == [0, 0, 0]
    assert len({tuple(color) for color in palette}) == 255
