"""The viewer, in a real chromium: views, classes, zoom, disagreement."""

import numpy as np
import pytest
from playwright.sync_api import expect

from segmodels import Segmenter, load_model
from segmodels.utils.palette import safe_palette
from tests.support.pages import PHONE, ROOT, finished, opened, painted, screenshot, show_in_panel

STREET = ROOT / "examples" / "avenue.jpg"
TITLES = ["FCN-8s", "U-Net", "SegNet-Basic"]
NAMES = ["fcn-camvid", "unet-camvid", "segnet-camvid"]


@pytest.fixture(scope="module")
def results(served):
    """What the small networks say of the first example, by title."""
    return {
        title: Segmenter(load_model(served / "weights_card" / name), "cpu")(STREET)
        for title, name in zip(TITLES, NAMES, strict=True)
    }


@pytest.fixture(scope="module")
def differs(results):
    """(H, W): where not all three agree. The small networks have the same classes."""
    first, second, third = (result.class_map for result in results.values())
    return (first != second) | (second != third)


@pytest.fixture
def viewer(shared_page):
    """The masks as they are at first, on a page that is shared."""
    viewer = shared_page.locator("#masks")
    viewer.get_by_role("radio", name="Overlay").check()
    viewer.get_by_role("radio", name="3", exact=True).check()
    for toggle in viewer.locator(".toggle input").all():
        toggle.uncheck()
    hidden = viewer.locator(".key input:not(:checked)")
    hidden.evaluate_all("boxes => boxes.forEach((box) => box.click())")
    viewer.get_by_role("button", name="Whole image").click()
    shared_page.mouse.move(5, 5)
    return viewer


def test_overlay_mask_original_and_slider_are_views_of_one_panel(page, results):
    finished(page, 900, 600)
    viewer = page.locator("#masks")
    canvas, image = viewer.locator("canvas.map").first, viewer.locator(".stage img").first
    slider = viewer.get_by_label("Opacity")
    slider.fill("0.25")
    expect(canvas).to_have_css("opacity", "0.25")
    viewer.get_by_role("radio", name="Mask").check()
    expect(canvas).to_have_css("opacity", "1")
    expect(image).to_have_css("visibility", "hidden")
    viewer.get_by_role("radio", name="Original").check()
    expect(canvas).to_have_css("visibility", "hidden")
    expect(image).to_have_css("visibility", "visible")
    viewer.get_by_role("radio", name="Overlay").check()
    expect(canvas).to_have_css("opacity", "0.25")
    # One network alone, the original on the left, then another network.
    viewer.get_by_role("radio", name="1", exact=True).check()
    expect(viewer.locator("figure:visible")).to_have_count(1)
    show_in_panel(page, 1, "U-Net")
    viewer.get_by_role("radio", name="Slider").check()
    splitter = page.get_by_label("U-Net: share of the left side in percent")
    shown = viewer.locator("figure:visible canvas.map")
    expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 50%)")
    splitter.focus()
    splitter.press("ArrowRight")
    expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 51%)")
    viewer.get_by_label("Left of the slider").select_option("FCN-8s")
    under = viewer.locator("figure:visible canvas.under")
    expect(under).to_have_css("clip-path", "inset(0px 49% 0px 0px)")
    pixel = under.evaluate("c => [...c.getContext('2d').getImageData(10, 300, 1, 1).data]")
    fcn = results["FCN-8s"]
    assert pixel[:3] == fcn.palette[fcn.class_map[300, 10]]
    screenshot(page, "slider")


def test_the_legend_isolates_switches_and_shows_alone(viewer, results):
    page = viewer.page
    before = {title: painted(page, title) for title in TITLES}
    unet = results["U-Net"]
    seen = np.unique(unet.class_map)[0]
    name, color = unet.class_names[seen], unet.palette[seen]
    box = viewer.locator(".key").get_by_label(name, exact=True)
    entry = viewer.locator(".key label", has=page.locator(f"input[aria-label='{name}']"))
    share = unet.areas()[name]
    assert f"{100 * share:.{1 if share < 0.1 else 0}f}" in entry.locator("small").inner_text()

    def expected(title, keep):
        painted_ = before[title].copy()
        here = (painted_[..., :3] == color).all(-1)
        painted_[here != keep] = 0
        return painted_

    entry.hover()  # the class alone, as long as the pointer is there
    assert np.array_equal(painted(page, "U-Net"), expected("U-Net", keep=True))
    page.mouse.move(5, 5)
    assert np.array_equal(painted(page, "U-Net"), before["U-Net"])
    box.uncheck()
    page.mouse.move(5, 5)
    for title in TITLES:
        assert np.array_equal(painted(page, title), expected(title, keep=False))
    box.check()
    page.mouse.move(5, 5)
    assert np.array_equal(painted(page, "FCN-8s"), before["FCN-8s"])
    entry.dblclick()
    page.mouse.move(5, 5)
    assert np.array_equal(painted(page, "FCN-8s"), expected("FCN-8s", keep=True))
    viewer.get_by_role("button", name="Show all").click()
    page.mouse.move(5, 5)
    assert np.array_equal(painted(page, "FCN-8s"), before["FCN-8s"])
    viewer.get_by_role("button", name="Hide all").click()
    page.mouse.move(5, 5)
    assert not painted(page, "FCN-8s").any()


def test_classes_of_no_network_are_folded_away(viewer, results):
    found = {name for r in results.values() for name, share in r.areas().items() if share}
    absent = [name for name in results["U-Net"].class_names if name not in found]
    summary = viewer.locator(".key summary")
    if not absent:
        expect(summary).to_have_count(0)
        return
    expect(summary).to_have_text(f"Not found by any network ({len(absent)})")
    summary.click()
    expect(viewer.locator(".key details li span")).to_have_text(absent)


def test_the_disagreement_is_a_view_and_its_places_are_visited(viewer, results, differs):
    page = viewer.page
    viewer.get_by_role("radio", name="Disagreement").check()
    for title, result in results.items():
        shown = painted(page, title)
        assert np.array_equal(shown[..., 3] > 0, differs), title
        colors = np.array(result.palette, np.uint8)[result.class_map]
        assert np.array_equal(shown[differs][:, :3], colors[differs]), title
    next_ = viewer.get_by_role("button", name="Next disagreement")
    places = set()
    for _ in range(2):
        next_.click()
        said = viewer.locator(".readout").inner_text()
        names = [part.split(": ")[1] for part in said.split(" · ")]
        assert len(names) == 3
        assert len(set(names)) > 1
        places.add(viewer.locator(".marker").first.get_attribute("style"))
    assert len(places) == 2
    screenshot(page, "disagreement")


def scales(page):
    return page.locator("#masks .view").evaluate_all(
        "views => views.map((view) => new DOMMatrix(getComputedStyle(view).transform).a)"
    )


def test_all_panels_zoom_and_move_together(viewer, results):
    page = viewer.page
    view, stage = viewer.locator(".view").nth(1), viewer.locator(".stage").nth(1)
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    expect(viewer.locator(".panels")).to_have_attribute("data-zoomed", "")
    assert scales(page) == pytest.approx([np.e] * 3, rel=1e-3)
    # What was under the pointer still is: the class there is that of (1/4, 1/2) of the image.
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2 + 1)
    for number, result in enumerate(results.values()):
        near = result.class_map[297:305, 221:230]
        names = {result.class_names[i] for i in np.unique(near)}
        assert viewer.locator(".here").nth(number).inner_text() in names
    before = [v.bounding_box()["x"] for v in viewer.locator(".view").all()]
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4 - 30, box["y"] + box["height"] / 2 + 1)
    page.mouse.up()
    after = [v.bounding_box()["x"] for v in viewer.locator(".view").all()]
    assert [b - a for a, b in zip(after, before, strict=True)] == pytest.approx([30] * 3, abs=1)
    view.dblclick()  # the whole image again
    assert scales(page) == [1, 1, 1]
    view.dblclick()
    assert scales(page) == [4, 4, 4]
    expect(view).to_have_attribute("data-pixelated", "")
    expect(viewer.locator("canvas.map").nth(1)).to_have_css("image-rendering", "pixelated")
    view.focus()
    page.keyboard.press("0")
    assert scales(page) == [1, 1, 1]
    page.keyboard.press("+")
    assert scales(page) == [2, 2, 2]
    page.keyboard.press("-")
    viewer.get_by_role("button", name="Zoom in").click()
    assert scales(page) == [2, 2, 2]
    viewer.get_by_role("button", name="Whole image").click()
    assert scales(page) == [1, 1, 1]
    viewer.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement?.classList.contains('viewer')")
    viewer.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement === null")


def test_scrolling_down_over_the_masks_scrolls_the_page(viewer):
    page = viewer.page
    box = viewer.locator(".stage").first.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, 200)
    page.wait_for_function("window.scrollY > 50")
    assert scales(page) == [1, 1, 1]


def test_outlines_and_the_safe_palette_are_a_switch(viewer, results):
    page = viewer.page
    unet = results["U-Net"]
    viewer.get_by_label("Colour-blind safe").check()
    safe = np.array(safe_palette(unet.class_names), np.uint8)[unet.class_map]
    assert np.array_equal(painted(page, "U-Net")[..., :3], safe)
    color = viewer.locator(".key input").first.evaluate("e => e.style.getPropertyValue('--color')")
    assert color == f"rgb({','.join(map(str, safe_palette(unet.class_names)[0]))})"
    viewer.get_by_label("Outlines").check()
    outlined = painted(page, "U-Net")
    black = (outlined[..., :3] == 0).all(-1) & (outlined[..., 3] == 255)
    assert black.any()
    # They are where classes meet, no farther than they are wide.
    ids = unet.class_map
    edges = np.zeros(ids.shape, bool)
    for shift in range(1, 4):
        edges[:, :-shift] |= ids[:, :-shift] != ids[:, shift:]
        edges[:-shift] |= ids[:-shift] != ids[shift:]
    assert not (black & ~edges).any()
    screenshot(page, "safe-palette")


def test_each_architecture_is_drawn_under_its_mask_on_request(viewer):
    expect(viewer.locator(".architecture svg:visible")).to_have_count(0)
    viewer.get_by_label("Architecture").check()
    expect(viewer.locator(".architecture svg:visible")).to_have_count(3)


def test_the_keyboard_alone_is_enough_and_the_agreement_stays(viewer):
    page = viewer.page
    viewer.get_by_role("radio", name="Overlay").focus()
    page.keyboard.press("ArrowRight")
    expect(viewer.locator(".panels")).to_have_attribute("data-view", "disagreement")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator(".panels")).to_have_attribute("data-view", "map")
    page.keyboard.press("Tab")  # how many panels
    page.keyboard.press("ArrowLeft")
    expect(viewer.locator("figure:visible")).to_have_count(2)
    box = viewer.locator(".key input").first
    box.focus()
    page.keyboard.press("Space")
    expect(box).not_to_be_checked()
    view = viewer.locator(".view").first
    view.focus()
    page.keyboard.press("ArrowRight")
    expect(viewer.locator(".readout")).to_contain_text("FCN-8s: ")
    expect(viewer.locator(".status")).to_contain_text("All networks agree on")
    outline = viewer.locator(".stage").first.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Tab")
    expect(viewer.locator(".readout")).to_be_empty()


def test_the_class_under_a_finger_can_be_read(browser, tiny_address):
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(tiny_address)
    finished(page, 900, 600)
    viewer = page.locator("#masks")
    stage = viewer.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    here = viewer.locator(".here").first
    expect(here).not_to_be_empty()
    shown = here.bounding_box()  # above the finger, on the image
    assert box["y"] - 5 <= shown["y"] < box["y"] + box["height"] / 2
    expect(viewer.locator(".readout")).to_contain_text("U-Net: ")  # of the panels out of sight too
    screenshot(page, "phone-finger")
    context.close()


def test_masks_are_described_in_words(viewer):
    labels = viewer.locator("[role=img]").evaluate_all(
        "views => views.map(view => view.getAttribute('aria-label'))"
    )
    labels = [label for label in labels if label.startswith("Classes")]
    for title, label in zip(TITLES, labels, strict=True):
        assert label.startswith(f"Classes predicted by {title}, by area: ")
        assert "%" in label
    assert viewer.page.locator("html").get_attribute("lang") == "en"


def test_dark_masks_are_as_light_ones(browser, tiny_address, results):
    with opened(browser, tiny_address, scheme="dark") as page:
        finished(page, 900, 600)
        unet = results["U-Net"]
        colors = np.array(unet.palette, np.uint8)[unet.class_map]
        assert np.array_equal(painted(page, "U-Net")[..., :3], colors)
        page.get_by_role("tab", name="Agreement", exact=True).click()
        expect(page.locator("#agreement canvas.map")).to_be_visible()
        agreed = painted(page, "Agreement", "#agreement")
        assert not ((agreed[..., :3] == 255).all(-1) & (agreed[..., 3] > 0)).any()
