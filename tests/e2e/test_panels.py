"""What the panels show is free to choose, and what belongs beside them."""

import re

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from segmodels.demo import strings
from tests.support.pages import (
    ROOT,
    finished,
    open_tab,
    painted,
    screenshot,
    show_in_panel,
)

TITLES = ["FCN-8s", "U-Net", "SegNet-Basic"]


def titles(page):
    return page.locator("#masks .panels strong")


def count(page, number):
    page.locator("#masks").get_by_role("radio", name=str(number), exact=True).check()


def boxes(page, viewer="#masks"):
    return [stage.bounding_box() for stage in page.locator(f"{viewer} .stage").all()]


def test_a_panel_shows_any_network_the_ground_truth_or_the_original(page):
    finished(page, 900, 600)
    page.locator("#examples button[data-key=crossing]").click()
    count(page, 4)
    expect(titles(page)).to_have_text([*TITLES, strings.TRUTH])
    expect(page.locator("#masks figure[data-state=ready]")).to_have_count(4)
    unet = painted(page, "U-Net")
    with Image.open(ROOT / "examples/labels/crossing.png") as label:
        void = np.array(label) == 255
    assert np.array_equal(painted(page, strings.TRUTH)[..., 3] == 0, void)
    first, second, third, fourth = boxes(page)  # two by two
    assert first["y"] == second["y"] < third["y"] == fourth["y"]
    assert first["x"] == third["x"] < second["x"] == fourth["x"]
    screenshot(page, "four-panels")
    show_in_panel(page, 4, "Original")
    expect(page.locator("#masks figure").nth(3).locator("canvas.map")).to_be_hidden()
    show_in_panel(page, 1, "U-Net")
    expect(titles(page)).to_have_text(["U-Net", "U-Net", "SegNet-Basic", "Original"])
    count(page, 1)
    assert np.array_equal(painted(page, "U-Net"), unet)
    # A slider between two networks.
    page.locator("#masks").get_by_role("radio", name="Slider").check()
    page.locator("#masks").get_by_label("Left of the slider").select_option(label="SegNet-Basic")
    expect(page.locator("#masks canvas.under")).to_be_visible()


def test_a_network_of_another_scene_takes_a_place_and_states_no_agreement(page):
    finished(page, 900, 600)
    show_in_panel(page, 3, "U-Net (People and animals)")
    expect(titles(page)).to_have_text(["FCN-8s", "U-Net", "U-Net (2)"])
    finished(page, 900, 600)
    expect(page.locator("#masks .status")).to_have_text(strings.NO_COMMON_CLASSES)
    expect(page.locator("#masks .key")).to_contain_text("cat")
    show_in_panel(page, 3, "SegNet-Basic (Road)")
    expect(titles(page)).to_have_text(TITLES)
    expect(page.locator("#masks .status")).to_contain_text("All networks agree on")


def test_one_network_alone_has_its_masks_and_no_agreement(page):
    page.locator("#scene").get_by_label("People and animals").check()
    expect(titles(page)).to_have_text(["U-Net"])
    expect(page.locator("#examples button[aria-current]")).to_have_attribute("data-key", "dogs")
    finished(page, 906, 600)
    expect(page).to_have_url(re.compile(r"scene=animals$"))  # whose first example it is
    expect(page.locator("#masks .status")).to_be_hidden()
    open_tab(page, "Agreement")
    expect(page.locator("[role=tabpanel]:visible")).to_contain_text(strings.ONE_NETWORK)
    page.locator("#scene").get_by_label("Road").check()
    expect(titles(page)).to_have_text(TITLES)
    expect(page).not_to_have_url(re.compile("scene="))


def test_the_networks_are_told_apart_in_one_table_on_the_first_screen(shared_page):
    page = shared_page
    table = page.locator("#facts table")
    expect(table.locator("tbody tr")).to_have_count(3)
    for text in ("FCN-8s", "2015", "SegNet-Basic", "2017", "parameters"):
        expect(table).to_contain_text(text, ignore_case=True)
    box = table.bounding_box()
    assert box["y"] + box["height"] <= 900
    paper = page.get_by_role("link", name="paper of U-Net")
    expect(paper).to_have_attribute("href", "https://arxiv.org/abs/1505.04597")
    expect(page.get_by_role("link", name="code of FCN-8s")).to_be_visible()


def test_the_notes_of_an_example_lead_to_the_place(shared_page):
    page = shared_page
    page.get_by_role("button", name="Distant pavement").click()
    expect(page.locator("#masks .panels")).to_have_attribute("data-zoomed", "")
    expect(page.locator("#masks .here").first).not_to_be_empty()
    page.get_by_role("button", name="32s loses the posts, 8s recovers them").click()
    expect(page.locator("#skips .panels")).to_have_attribute("data-zoomed", "")
    expect(page.locator("#skips .panels")).to_be_in_viewport()
    screenshot(page, "notes")
