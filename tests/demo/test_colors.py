"""Colors that color-blind readers tell apart, by an independent measure."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms

from segmodels.demo.colors import SAFE_COLORS, safe_palette
from segmodels.utils.palette import palette_for

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
ROAD = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
CAMVID = [*ROAD, "pedestrian", "bicyclist"]


def least_difference(colors, sight):
    """Distance in CIELAB (1976) of the two colors that are most alike."""
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
    assert least_difference(SAFE_COLORS[:11], sight) > 22
    assert least_difference(SAFE_COLORS, sight) > 12


def test_the_customary_colors_are_not():
    assert least_difference(palette_for(CAMVID), "deuteranopia") < 10


def test_a_palette_has_a_color_a_class_and_black_for_the_background():
    palette = safe_palette(["background", *(f"class {i}" for i in range(30))])
    assert palette[0] == [0, 0, 0]
    assert len({tuple(color) for color in palette}) == 31
