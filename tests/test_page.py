"""The page, in a real chromium: `python app.py` with the networks of the repository."""

import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from segmodels import Segmenter, load_model

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "artifacts"  # kept by CI
STREET = ROOT / "examples" / "avenue.jpg"
NETWORKS = {"fcn-camvid": "FCN-8s", "unet-camvid": "U-Net", "segnet-camvid": "SegNet"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the demo listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("demo") / "log.txt"
    variables = {k: v for k, v in os.environ.items() if k != "SEGMODELS_MODELS"}
    variables |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with open(log, "w") as output:
        demo = subprocess.Popen(
            [sys.executable, ROOT / "app.py"], stdout=output, stderr=output, env=variables
        )
    try:
        for _ in range(240):
            if "Running on" in log.read_text() or demo.poll() is not None:
                break
            time.sleep(0.5)
        assert demo.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        demo.terminate()
        demo.wait(20)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def expected():
    """What each network says of the street picture."""
    return {
        title: Segmenter(load_model(ROOT / "weights_card" / name))(STREET)
        for name, title in NETWORKS.items()
    }


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    yield page
    context.close()


def choose(page: Page, path: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(path)


def panel_image(page: Page, title: str) -> np.ndarray:
    """The picture that a panel shows, (H, W, 3), as the browser has it."""
    image = page.locator("#panels .panel", has_text=title).locator("img")
    expect(image).to_be_visible(timeout=60_000)
    data = image.evaluate(
        """async element => {
            const bytes = new Uint8Array(await (await fetch(element.src)).arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }"""
    )
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_an_uploaded_street_gets_three_masks_in_the_legends_colours(page, expected):
    choose(page, STREET)
    for title, result in expected.items():
        shown = panel_image(page, title)
        assert np.array_equal(shown, np.array(result.overlay(0.6))), title
    expect(page.locator(".caption strong")).to_have_count(3)
    colors = page.locator("#legend .swatch").evaluate_all(
        "swatches => swatches.map(swatch => swatch.style.backgroundColor)"
    )
    palette = next(iter(expected.values())).palette
    assert colors == [f"rgb({r}, {g}, {b})" for r, g, b in palette]
    expect(page.locator("table.areas")).to_contain_text("All agree on")
    SCREENSHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)


def test_an_example_is_compared_on_a_click(page):
    page.locator("#examples button, #examples .gallery-item").first.click()
    for title in NETWORKS.values():
        assert panel_image(page, title).shape == (600, 900, 3)


def test_opacity_repaints_the_masks(page, expected):
    choose(page, STREET)
    panel_image(page, "SegNet")
    expect(page.locator("table.areas")).to_contain_text("All agree on")
    slider = page.locator("input[type=range]")
    before = page.locator("#panels img").first.get_attribute("src")
    slider.focus()
    slider.press("End")  # opacity 1: the colours alone
    slider.dispatch_event("pointerup")
    page.wait_for_function(
        "before => document.querySelector('#panels img').src !== before", arg=before
    )
    page.wait_for_timeout(1000)
    assert np.array_equal(panel_image(page, "FCN-8s"), np.array(expected["FCN-8s"].colored()))


def test_class_ids_can_be_taken_away_exactly(page, expected, tmp_path):
    choose(page, STREET)
    panel_image(page, "SegNet")
    buttons = page.get_by_role("button", name="Class ids (PNG)")
    for number, result in enumerate(expected.values()):
        expect(buttons.nth(number)).to_be_enabled()
        with page.expect_download() as download:
            buttons.nth(number).click()
        download.value.save_as(tmp_path / "ids.png")
        with Image.open(tmp_path / "ids.png") as ids:
            assert ids.mode == "P"
            assert np.array_equal(np.array(ids), result.class_map)


def test_what_is_no_picture_is_told_in_words(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    choose(page, tmp_path / "notes.png")
    expect(page.get_by_text("notes.png is not a picture")).to_be_visible(timeout=30_000)
    expect(page.locator("#legend li")).to_have_count(11)


def test_comparing_nothing_asks_for_a_picture(page):
    page.locator("#compare").click()
    expect(page.get_by_text("Choose a picture first").last).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser, address, scheme):
    context = browser.new_context(viewport={"width": 375, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{address}/?__theme={scheme}", timeout=60_000)
    choose(page, STREET)
    panel_image(page, "SegNet")
    expect(page.locator("table.areas")).to_contain_text("All agree on", timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"phone-{scheme}.png", full_page=True)
    context.close()


# ---- the API ----


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def test_segment_answers_with_exact_class_ids(client, expected):
    for name, title in NETWORKS.items():
        file = client.predict(handle_file(STREET), name, api_name="/segment")
        with Image.open(file) as ids:
            assert np.array_equal(np.array(ids), expected[title].class_map)


def test_compare_answers_with_figures(client, expected):
    answer = client.predict(handle_file(STREET), "road", api_name="/compare")
    maps = [result.class_map for result in expected.values()]
    assert answer["size"] == [900, 600]
    same = (maps[0] == maps[1]) & (maps[1] == maps[2])
    assert answer["agreement"] == pytest.approx(same.mean())
    assert list(answer["models"]) == list(NETWORKS)
    assert answer["models"]["unet-camvid"]["areas"] == pytest.approx(expected["U-Net"].areas())


@pytest.mark.parametrize(
    ("content", "model", "message"),
    [
        (b"no picture", "unet-camvid", "is not a picture"),
        (STREET.read_bytes()[:5000], "unet-camvid", "damaged, cut off"),
        (STREET.read_bytes(), "no-such-model", "There is no model 'no-such-model'"),
    ],
)
def test_programs_are_told_what_is_wrong(client, tmp_path, content, model, message):
    (tmp_path / "given.jpg").write_bytes(content)
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(tmp_path / "given.jpg"), model, api_name="/segment")
