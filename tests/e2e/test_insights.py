"""The page explains: each tab, in a real chromium, with small networks."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from segmodels import Segmenter, load_model
from tests.support.pages import ROOT, choose, finished, open_tab, painted, screenshot

STREET = ROOT / "examples" / "avenue.jpg"


def example(page, number):
    page.locator("#examples .thumbnails button").nth(number).click()


def class_maps(served, picture):
    folders = [served / "weights_card" / f"{name}-camvid" for name in ("fcn", "unet", "segnet")]
    return [Segmenter(load_model(folder), "cpu")(picture).class_map for folder in folders]


def test_areas_and_seconds_are_plots(shared_page, served):
    page = shared_page
    first = class_maps(served, STREET)[0]
    ids, counts = np.unique(first, return_counts=True)
    largest = counts.max() / first.size
    shares = page.locator("#areas table").first
    expect(shares).to_contain_text(f"{100 * largest:.1f} %")
    widths = shares.locator(".bar").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
    assert max(widths) > 100
    expect(page.locator("#areas table").nth(1).locator(".bar")).to_have_count(6)
    assert len(ids) <= shares.locator("tbody tr").count()


def test_the_map_of_disagreement_has_its_figures(shared_page, served):
    page = shared_page
    maps = class_maps(served, STREET)
    same = (maps[0] == maps[1]) & (maps[1] == maps[2])
    open_tab(page, "Agreement")
    expect(page.locator("#agreement .key li")).to_have_count(5)
    legend = page.locator("#agreement .key li").all_inner_texts()
    share = 100 * same.mean()
    figure = re.match(r"all agree: (?:(-)|< 0.1 %|([\d.]+) %)", legend[0])
    assert float(figure[2] or 0) == pytest.approx(share, abs=0.1)
    map_ = painted(page, "Agreement", "#agreement")
    assert np.array_equal(map_[..., 3] == 0, same)  # the image is seen where all agree
    screenshot(page, "agreement")


def test_confidence_and_heat_maps_come_when_they_are_looked_at(shared_page):
    page = shared_page
    expect(page.locator("#confidence")).to_have_count(0)
    open_tab(page, "Confidence")
    expect(page.locator("#confidence figure[data-state=ready]")).to_have_count(3)
    confidence = painted(page, "U-Net", "#confidence")
    page.get_by_label("Probability of").select_option(label="road")
    expect(page.locator("#confidence figure").nth(1)).to_have_attribute("data-drawn", "4")
    heat = painted(page, "U-Net", "#confidence")
    assert heat.shape == confidence.shape == (43, 64, 4)  # the network's working size
    assert (heat != confidence).any()
    page.locator("#confidence .view").first.hover()
    expect(page.locator("#confidence .here").first).to_have_text(re.compile(r"\d+ %"))
    screenshot(page, "confidence")


def test_the_stages_of_the_skips_stand_beside_each_other_and_follow_the_picture(page, served):
    open_tab(page, "FCN skip connections")
    expect(page.locator("#skips figure[data-state=ready]")).to_have_count(3)
    model = load_model(served / "weights_card" / "fcn-camvid")
    stage = Segmenter(model, "cpu").at_stride(STREET, 32)
    colors = np.array(model.palette, np.uint8)[stage.class_map]
    assert np.array_equal(painted(page, "FCN-32s", "#skips")[..., :3], colors)
    screenshot(page, "skips")
    example(page, 4)
    finished(page, 848, 600)
    page.wait_for_function(
        "document.querySelector('#skips .stage').style.aspectRatio === '848 / 600'"
    )
    assert painted(page, "FCN-8s", "#skips").shape == (600, 848, 4)


def test_uncertainty_is_drawn_on_request(shared_page):
    page = shared_page
    open_tab(page, "Uncertainty")
    page.locator("#sample").click()
    expect(page.get_by_text("Trained without dropout, so not shown: U-Net.")).to_be_visible()
    expect(page.locator("#uncertainty figure[data-state=ready]")).to_have_count(2)
    expect(page.locator("#uncertainty .caption").first).to_contain_text("over 8 samples")
    screenshot(page, "uncertainty")


def test_an_example_has_a_ground_truth(page):
    open_tab(page, "Ground truth")
    example(page, 1)
    expect(page.locator("#errors figure[data-state=ready]")).to_have_count(4)
    truth = painted(page, "Ground truth", "#errors")
    with Image.open(ROOT / "examples/labels/crossing.png") as label:
        void = np.array(label) == 255
    assert np.array_equal(truth[..., 3] == 0, void)
    expect(page.locator("#iou tr.total")).to_contain_text("mean IoU")
    screenshot(page, "ground-truth")


def test_a_label_of_the_visitors_is_judged_and_a_wrong_one_explained(page, served, tmp_path):
    picture = tmp_path / "photo.png"
    noise = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
    shape = (90, 66)  # no example's, so that `choose` waits for this picture
    Image.fromarray(noise).resize(shape, Image.Resampling.BICUBIC).save(picture)
    ids = class_maps(served, picture)[1]
    Image.fromarray(ids).save(tmp_path / "label.png")
    Image.fromarray(ids[:9]).save(tmp_path / "short.png")
    choose(page, picture)
    open_tab(page, "Ground truth")
    label = page.locator("#label input[type=file]")
    label.set_input_files(tmp_path / "label.png")
    unet = page.locator("#errors figure", has=page.locator("strong:text-is('U-Net')"))
    expect(unet.locator(".caption")).to_have_text("mean IoU 100.0 % · 100.0 % of the pixels right")
    page.locator("#label").get_by_label("Remove Image").click()
    expect(page.locator("#errors .viewer")).to_be_hidden()
    label.set_input_files(tmp_path / "short.png")
    message = "short.png is 90 x 9 pixels, but the image is 90 x 66; the sizes must be equal"
    expect(page.get_by_role("alert").filter(has_text=message)).to_be_visible()


def test_each_network_is_explained_with_a_drawing(shared_page):
    page = shared_page
    open_tab(page, "How they work")
    drawings = page.locator(".drawing svg:visible")
    expect(drawings).to_have_count(3)
    for name in ("FCN (Long", "U-Net (Ronneberger", "SegNet (Badrinarayanan"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    screenshot(page, "networks")


def test_a_visitors_network_takes_a_place_and_leaves_it(page):
    open_tab(page, "Bring your own model")
    page.locator("#hub-id input, #hub-id textarea").fill("org/none")
    page.locator("#add-model").click()
    expect(page.locator("#user-model-note")).to_contain_text("there is no public model org/none")
    page.locator("#hub-id input, #hub-id textarea").fill("org/guest")
    page.locator("#add-model").click()
    expect(page.locator("#user-model-note")).to_contain_text("org/guest is a U-Net with 2 classes")
    expect(page.locator("#masks .panels strong")).to_have_text(
        ["U-Net", "U-Net (2)", "SegNet-Basic"]
    )
    expect(page.locator("#masks .key li")).to_have_count(12)  # zebra beside the eleven
    finished(page, 900, 600)
    page.get_by_role("button", name="Restore built-in models").click()
    expect(page.locator("#masks .panels strong")).to_have_text(["FCN-8s", "U-Net", "SegNet-Basic"])
