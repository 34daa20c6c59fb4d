"""The page compares, in a real chromium: networks of the repository, and small ones."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from segmodels import Segmenter, load_model
from tests.support.pages import ROOT, choose, finished, opened, painted, screenshot

STREET = ROOT / "examples" / "avenue.jpg"
TINY_TITLES = ["FCN-8s", "U-Net", "SegNet-Basic"]
NAMES = ["fcn-camvid", "unet-camvid", "segnet-camvid"]


@pytest.fixture(scope="module")
def tiny(served):
    """The small networks, by title."""
    return {
        title: Segmenter(load_model(served / "weights_card" / name), "cpu")
        for title, name in zip(TINY_TITLES, NAMES, strict=True)
    }


@pytest.fixture
def photo(tmp_path):
    """An image file, 80 x 60 pixels: of no example's proportions, so that `choose` waits."""
    coarse = np.random.default_rng(2).integers(0, 256, (6, 9, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return path


def colors(segmentation, alpha=255):
    """(h, w, 4) as the viewer paints a class map."""
    table = np.array([[*color, alpha] for color in segmentation.palette], np.uint8)
    return table[segmentation.class_map]


@pytest.mark.weights
def test_the_networks_masks_stream_in_exactly(browser, address, published):
    with opened(browser, address) as page:
        expect(page.locator("#masks figure[data-state=ready]")).to_have_count(3)
        page.locator("#examples button[data-key=crossing]").click()
        page.wait_for_function(
            "document.querySelectorAll('#masks figure[data-state=running]').length === 1"
        )
        expect(page.locator("#masks .status")).to_contain_text("is running, 1 of 3")
        page.wait_for_function(
            """document.querySelector("#masks figure[data-state=ready]")
               && document.querySelector("#masks figure[data-state=running]")"""
        )
        finished(page, 900, 600)
        for title, name in zip(["FCN-8s", "U-Net", "SegNet"], NAMES, strict=True):
            assert np.array_equal(painted(page, title), colors(published[name])), title
        expect(page.locator("#masks .status")).to_contain_text("All networks agree on")
        expect(page.locator("#examples .look-for")).to_contain_text("pole of the stop sign")
        screenshot(page, "comparison")


def test_a_visitor_sees_an_example_compared_at_once(shared_page, tiny):
    page = shared_page
    assert np.array_equal(painted(page, "U-Net"), colors(tiny["U-Net"](STREET)))
    expect(page.locator("#areas table")).to_have_count(2)
    boxes = [stage.bounding_box() for stage in page.locator("#masks .stage").all()]
    assert len({(round(box["width"]), round(box["height"]), box["y"]) for box in boxes}) == 1
    # Results first: the masks, and the tabs below them, are within the first screen.
    tabs = page.get_by_role("tab", name="Agreement", exact=True).bounding_box()
    assert boxes[0]["y"] + boxes[0]["height"] < tabs["y"]
    assert tabs["y"] + tabs["height"] <= 900
    width = page.locator("#masks").bounding_box()["width"]
    page.get_by_role("tab", name="How they work").click()
    assert page.locator("#masks").bounding_box()["width"] == width


def test_wide_screens_are_used(shared_page):
    shared_page.set_viewport_size({"width": 1920, "height": 1080})
    assert shared_page.locator("#masks .panels").bounding_box()["width"] > 1700


def test_an_image_of_whatever_size_is_compared(page, tiny, photo, tmp_path):
    choose(page, photo)
    for title, segmenter in tiny.items():
        assert np.array_equal(painted(page, title), colors(segmenter(photo))), title
    Image.new("RGB", (13, 20), (80, 90, 100)).save(tmp_path / "thin.png")
    choose(page, tmp_path / "thin.png")  # on which one network fails
    failed = page.locator("#masks figure[data-state=failed]")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text("SegNet")
    expect(failed.locator(".note")).to_contain_text("This network failed on this image")
    expect(failed.locator(".note")).not_to_contain_text("Error")
    assert painted(page, "U-Net").shape == (20, 13, 4)
    expect(page.locator("#masks .status")).to_contain_text("agree on")
    # Panoramas lie below each other.
    Image.new("RGB", (120, 40), (90, 120, 60)).save(tmp_path / "wide.png")
    choose(page, tmp_path / "wide.png")
    boxes = [stage.bounding_box() for stage in page.locator("#masks .stage").all()]
    tops = [box["y"] for box in boxes]
    assert tops == sorted(set(tops))
    assert len({box["x"] for box in boxes}) == 1
    # A photo of a phone is shown small.
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    large = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    large.save(tmp_path / "phone.jpg", quality=90, exif=exif)
    page.locator("#input-buttons input[type=file]").set_input_files(tmp_path / "phone.jpg")
    finished(page, 3000, 4000)
    assert painted(page, "U-Net").shape == (1280, 960, 4)
    assert page.locator("#masks .stage img").first.evaluate("image => image.naturalWidth") == 960


def test_scenes_have_their_own_networks_examples_words_and_background(page, served):
    expect(page.locator("#scene-note")).to_contain_text("Streets seen from a car")
    page.locator("#scene").get_by_label("People and animals").check()
    expect(page.locator("#scene-note")).to_contain_text("everything else is background")
    expect(page.locator("#masks figure")).to_have_count(1)
    expect(page.locator("#masks .panels strong")).to_have_text(["U-Net"])
    page.locator("#examples button[data-key=cat]").click()
    finished(page, 451, 300)
    mask = painted(page, "U-Net")
    assert mask.shape == (300, 451, 4)
    expect(page.locator("#examples .look-for")).to_contain_text("The face fills the image")
    # A background is transparent.
    model = load_model(served / "weights_card/unet-animals")
    ids = Segmenter(model, "cpu")(ROOT / "examples/cat.jpg").class_map
    assert np.array_equal(mask[..., 3] == 0, ids == 0)
