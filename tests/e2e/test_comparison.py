"""The page compares, in a real chromium: networks of the repository, and small ones."""

import re
import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from segmodels import Segmenter, load_model
from tests.support.pages import ROOT, choose, finished, opened, painted, screenshot

STREET = ROOT / "examples" / "avenue.jpg"
CROSSING = ROOT / "examples" / "crossing.jpg"
TITLES = ["FCN-8s", "U-Net", "SegNet"]
NAMES = ["fcn-camvid", "unet-camvid", "segnet-camvid"]


@pytest.fixture(scope="module")
def tiny(served):
    """The small networks, by title."""
    return {
        title: Segmenter(load_model(served / "weights_card" / name), "cpu")
        for title, name in zip(TITLES, NAMES, strict=True)
    }


@pytest.fixture
def photo(tmp_path):
    """A picture file, 90 x 60 pixels."""
    coarse = np.random.default_rng(2).integers(0, 256, (6, 9, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


def colors(segmentation, alpha=255):
    """(h, w, 4) as the viewer paints a class map."""
    table = np.array([[*color, alpha] for color in segmentation.palette], np.uint8)
    return table[segmentation.class_map]


def test_the_networks_masks_stream_in_exactly_and_in_time(browser, address):
    with opened(browser, address) as page:
        expect(page.locator("#masks figure[data-state=ready]")).to_have_count(3)
        start = time.perf_counter()
        page.locator("#examples-road button, #examples-road .gallery-item").nth(1).click()
        page.wait_for_function(
            "document.querySelectorAll('#masks figure[data-state=running]').length === 1"
        )
        expect(page.locator("#masks .status")).to_contain_text("is running, 1 of 3")
        page.wait_for_function(
            """document.querySelector("#masks figure[data-state=ready]")
               && document.querySelector("#masks figure[data-state=running]")"""
        )
        first = time.perf_counter() - start
        finished(page, 900, 600)
        last = time.perf_counter() - start
        captions = page.locator("#masks .caption").all_inner_texts()
        seconds = [float(re.match(r"([\d.]+) s on the ", text)[1]) for text in captions]
        assert first <= 1.15 * sum(seconds) + 1
        assert last <= 1.15 * sum(seconds) + 3  # the pictures of all three, and this test's polling
        for title, name in zip(TITLES, NAMES, strict=True):
            expected = Segmenter(load_model(ROOT / "weights_card" / name))(CROSSING)
            assert np.array_equal(painted(page, title), colors(expected)), title
        expect(page.locator("#masks .status")).to_contain_text("All networks agree on")
        screenshot(page, "comparison")


def test_a_visitor_sees_an_example_compared_at_once(page, tiny):
    finished(page, 900, 600)
    assert np.array_equal(painted(page, "U-Net"), colors(tiny["U-Net"](STREET)))
    swatches = page.locator("#masks .key input").evaluate_all(
        "boxes => boxes.map(box => box.style.getPropertyValue('--color'))"
    )
    palette = tiny["U-Net"].model.palette
    assert swatches == [f"rgb({r},{g},{b})" for r, g, b in palette]
    expect(page.locator("#areas table")).to_have_count(2)


def test_an_uploaded_picture_is_compared(page, tiny, photo):
    choose(page, photo)
    for title, segmenter in tiny.items():
        assert np.array_equal(painted(page, title), colors(segmenter(photo))), title


def test_a_pasted_picture_is_compared(browser, tiny_address):
    with opened(browser, tiny_address) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate(
            """async () => {
                const canvas = document.createElement("canvas");
                Object.assign(canvas, { width: 50, height: 70 });
                canvas.getContext("2d").fillRect(10, 10, 20, 20);
                const blob = await new Promise((done) => canvas.toBlob(done));
                await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
            }"""
        )
        page.locator("#picture").get_by_label("Remove Image").click()
        page.locator("#picture").get_by_label("Paste from clipboard").click()
        finished(page, 50, 70)


def test_a_picture_of_the_webcam_is_compared(page):
    page.locator("#picture").get_by_label("Remove Image").click()
    page.locator("#picture").get_by_label("Capture from camera").click()
    page.locator("#picture").get_by_text("Click to Access Webcam").click()
    page.locator("#picture").get_by_label("capture photo").click()
    expect(page.locator("#masks figure[data-state=ready]")).to_have_count(3)


def test_switching_a_class_off_acts_on_all_panels_and_on_again(page, tiny):
    finished(page, 900, 600)
    before = {title: painted(page, title) for title in TITLES}
    # A class that somebody sees.
    seen = np.unique(tiny["U-Net"](STREET).class_map)[0]
    name = tiny["U-Net"].model.class_names[seen]
    page.locator("#masks .key").get_by_label(name, exact=True).uncheck()
    hidden = 0
    for title in TITLES:
        off = before[title].copy()
        here = (off[..., :3] == tiny["U-Net"].model.palette[seen]).all(-1)
        off[here] = 0
        hidden += here.sum()
        assert np.array_equal(painted(page, title), off)
    assert hidden
    page.locator("#masks .key").get_by_label(name, exact=True).check()
    assert np.array_equal(painted(page, "SegNet"), before["SegNet"])
    page.locator("#masks").get_by_role("button", name="all or none").click()
    assert not painted(page, "FCN-8s").any()


def test_overlay_mask_and_original_are_three_views_of_one_panel(page):
    canvas, picture = page.locator("#masks canvas").first, page.locator("#masks .stage img").first
    slider = page.locator("#masks").get_by_label("Opacity")
    slider.fill("0.25")
    expect(canvas).to_have_css("opacity", "0.25")
    page.locator("#masks").get_by_label("Mask").check()
    expect(canvas).to_have_css("opacity", "1")
    expect(picture).to_have_css("visibility", "hidden")
    page.locator("#masks").get_by_role("radio", name="Original").check()
    expect(canvas).to_have_css("visibility", "hidden")
    expect(picture).to_have_css("visibility", "visible")
    page.locator("#masks").get_by_label("Overlay").check()
    expect(canvas).to_have_css("opacity", "0.25")


def test_one_network_before_and_after(page):
    page.locator("#masks fieldset").nth(1).get_by_label("U-Net").check()
    expect(page.locator("#masks figure:visible")).to_have_count(1)
    page.locator("#masks").get_by_label("Before and after").check()
    splitter = page.get_by_label("U-Net: how much is the original, percent")
    canvas = page.locator("#masks figure:visible canvas")
    expect(canvas).to_have_css("clip-path", "inset(0px 0px 0px 50%)")
    splitter.focus()
    splitter.press("ArrowRight")
    expect(canvas).to_have_css("clip-path", "inset(0px 0px 0px 51%)")
    screenshot(page, "before-and-after")


def test_the_panels_are_of_one_size(page):
    boxes = [stage.bounding_box() for stage in page.locator("#masks .stage").all()]
    assert len({(round(box["width"]), round(box["height"]), box["y"]) for box in boxes}) == 1


def test_the_pointer_reads_every_panel_at_its_place(page, tiny):
    finished(page, 900, 600)
    view = page.locator("#masks .view").nth(1)
    box = view.bounding_box()
    view.hover(position={"x": box["width"] / 4, "y": box["height"] / 2})
    for number, (title, segmenter) in enumerate(tiny.items()):
        ids = segmenter(STREET).class_map[298:303, 223:228]  # at (225, 300), rounded by the screen
        names = {segmenter.model.class_names[i] for i in np.unique(ids)}
        assert page.locator("#masks .here").nth(number).inner_text() in names, title


def test_scenes_have_their_own_networks_examples_and_words(page):
    expect(page.locator("#scene-note")).to_contain_text("streets as seen from a car")
    page.locator("#scene").get_by_label("Everyday").check()
    expect(page.locator("#scene-note")).to_contain_text("animals, buildings")
    expect(page.locator("#masks figure")).to_have_count(1)
    expect(page.locator("#masks .key li")).to_have_text(["cat", "dog"])
    expect(page.locator("#examples-road")).to_be_hidden()
    page.locator("#examples-everyday button, #examples-everyday .gallery-item").first.click()
    finished(page, 451, 300)
    assert painted(page, "U-Net").shape == (300, 451, 4)


def test_a_failing_network_does_not_take_the_others_results_away(page, tmp_path, tiny):
    Image.new("RGB", (13, 20), (80, 90, 100)).save(tmp_path / "thin.png")
    choose(page, tmp_path / "thin.png")
    failed = page.locator("#masks figure[data-state=failed]")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text("SegNet")
    expect(failed.locator(".note")).to_contain_text("RuntimeError: not this one")
    assert painted(page, "FCN-8s").shape == (20, 13, 4)
    assert painted(page, "U-Net").shape == (20, 13, 4)
    expect(page.locator("#masks .status")).to_contain_text("agree on")


def test_what_is_no_picture_is_told_in_words(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#picture").get_by_label("Remove Image").click()
    expect(page.locator("#masks .viewer")).to_be_hidden()
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert").filter(has_text="notes.png is not a picture")).to_be_visible()


def test_comparing_nothing_asks_for_a_picture(page):
    page.locator("#picture").get_by_label("Remove Image").click()
    expect(page.locator("#masks .viewer")).to_be_hidden()
    page.locator("#compare").click()
    expect(page.get_by_role("alert").filter(has_text="Choose a picture first")).to_be_visible()


def test_a_photo_of_a_phone_is_shown_small_without_stalling_the_browser(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    photo = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photo.save(tmp_path / "phone.jpg", quality=90, exif=exif)
    page.evaluate(
        """() => {
            window.longest = 0;
            new PerformanceObserver((list) => {
                const durations = list.getEntries().map((task) => task.duration);
                window.longest = Math.max(window.longest, ...durations);
            }).observe({ type: "longtask" });
        }"""
    )
    page.locator("#picture").get_by_label("Remove Image").click()
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "phone.jpg")
    finished(page, 3000, 4000)
    assert painted(page, "SegNet").shape == (1280, 960, 4)
    assert page.locator("#masks .stage img").first.evaluate("image => image.naturalWidth") == 960
    assert page.evaluate("window.longest") < 1000  # milliseconds, of one task of the page
