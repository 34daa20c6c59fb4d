"""What is made from a class map."""

import numpy as np
import pytest
from PIL import Image

from segmodels import Segmentation
from segmodels.inference.results import LabeledImage, save_png

PALETTE = [[10, 20, 30], [200, 100, 0], [0, 0, 255]]


def segmentation(class_map, **others):
    class_map = np.array(class_map, np.uint8)
    values = {
        "image": Image.new("RGB", class_map.shape[::-1], (100, 100, 100)),
        "class_map": class_map,
        "make_confidence": lambda: np.ones(class_map.shape, np.float32),
        "class_names": ["road", "sky", "car"],
        "palette": PALETTE,
    }
    return Segmentation(**values | others)


def test_confidence_is_made_once_and_only_when_asked_for():
    made = []

    def make():
        made.append(np.full((1, 2), 0.5, np.float32))
        return made[-1]

    result = segmentation([[0, 1]], make_confidence=make)
    result.colored()
    assert not made
    assert result.confidence is result.confidence
    assert result.confidence.tolist() == [[0.5, 0.5]]
    assert len(made) == 1


def test_areas_are_fractions_largest_first_and_absent_classes_zero():
    areas = segmentation([[1, 1, 1, 0], [1, 1, 0, 1]]).areas()
    # 6 of 8 pixels are sky, 2 road.
    assert list(areas.items()) == [("sky", 0.75), ("road", 0.25), ("car", 0.0)]


def test_colored_has_the_palettes_colours():
    image = segmentation([[0, 1], [2, 0]]).colored()
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(PALETTE)[[[0, 1], [2, 0]]])


def test_overlay_mixes_picture_and_colours():
    overlay = segmentation([[1]]).overlay
    assert overlay(0).getpixel((0, 0)) == (100, 100, 100)
    assert overlay(1).getpixel((0, 0)) == (200, 100, 0)
    # A quarter of the colour: 100 + (200 - 100) / 4 = 125, 100, 100 - 100 / 4 = 75.
    assert overlay(0.25).getpixel((0, 0)) == (125, 100, 75)
    with pytest.raises(ValueError, match=r"opacity must be from 0 to 1, got 1\.5"):
        overlay(1.5)


def test_saved_pngs_hold_exact_ids_and_the_palette(tmp_path):
    result = segmentation([[0, 1, 2], [2, 2, 0]])
    result.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as image:
        assert (image.format, image.mode) == ("PNG", "P")
        assert np.array_equal(np.array(image), result.class_map)
        assert image.getpalette()[:9] == [value for color in PALETTE for value in color]
        assert np.array_equal(np.array(image.convert("RGB")), np.array(result.colored()))


def test_all_255_class_ids_survive_saving(tmp_path):
    ids = np.arange(255, dtype=np.uint8).reshape(15, 17)
    names, palette = [f"class {i}" for i in range(255)], [[i, 255 - i, i // 2] for i in range(255)]
    result = LabeledImage(Image.new("RGB", (17, 15)), ids, names, palette)
    result.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as image:
        assert np.array_equal(np.array(image), ids)
        assert np.array_equal(np.array(image.convert("RGB")), np.array(palette)[ids])


def test_an_interrupted_save_leaves_the_old_file_and_no_scratch(tmp_path, monkeypatch):
    segmentation([[0]]).save(tmp_path / "ids.png")
    before = (tmp_path / "ids.png").read_bytes()

    def break_off(self, path, **_):
        path.write_bytes(b"half a PNG")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", break_off)
    with pytest.raises(OSError, match="disk is full"):
        segmentation([[1]]).save(tmp_path / "ids.png")
    assert (tmp_path / "ids.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["ids.png"]


def test_a_fast_png_holds_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    save_png(Image.fromarray(pixels), tmp_path / "fast.png", fast=True)
    with Image.open(tmp_path / "fast.png") as image:
        assert np.array_equal(np.array(image), pixels)
