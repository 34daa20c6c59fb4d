"""Served pages and a browser, for the tests of the page."""

import base64
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from segmodels import FCN, Segmenter, SegNet, UNet, load_model
from tests.support.serving import ROOT, serving

CROSSING = ROOT / "examples" / "crossing.jpg"
SCREENSHOTS = ROOT / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# The program app.py with one scene of the repository's networks, without runs whose only purpose
# is to be timed.
APP = """
import runpy, sys
from segmodels.demo import callbacks, page
callbacks.WARM_RUNS = 0
load = page.load_networks
page.load_networks = lambda found: load([name for name in found if name.endswith("-camvid")])
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# Gradio draws the seconds that its page has been loading in each frame, even when it is loaded.
SLOW_TIMERS = """
const inNextFrame = window.requestAnimationFrame;
window.requestAnimationFrame = (draw) =>
    String(draw).includes("performance.now()-") ? setTimeout(draw, 200) : inNextFrame(draw);
"""
WAIT = 180_000  # milliseconds, however busy the machine
expect.set_options(timeout=WAIT)
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 800}
idle_pages: list[Page] = []  # that a test has left, at about:blank


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where app.py listens, with the repository's networks for roads."""
    log = tmp_path_factory.mktemp("demo") / "log.txt"
    with serving(log, "-c", APP, ROOT / "app.py", PYTHONPATH=ROOT) as address:
        yield address


@pytest.fixture(scope="session")
def published():
    """What those networks say of CROSSING, by name."""
    names = ["fcn-camvid", "unet-camvid", "segnet-camvid"]
    return {name: Segmenter(load_model(ROOT / "weights_card" / name))(CROSSING) for name in names}


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A folder of networks of few weights: weights_card/*, and one that a visitor may bring."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
    road = {"class_names": [*names, "pedestrian", "bicyclist"], "working_size": 64}
    networks = {
        "weights_card/fcn-camvid": FCN(head_channels=8, at_once=False, **road),
        "weights_card/unet-camvid": UNet(base_channels=2, **road),
        "weights_card/segnet-camvid": SegNet(variant="basic", dropout=0.5, **road),
        "weights_card/unet-animals": UNet(
            class_names=["background", "cat", "dog"], base_channels=2, working_size=64
        ),
        "guest": UNet(class_names=["road", "zebra"], base_channels=2, working_size=64),
    }
    for name, network in networks.items():
        for layer_name, parameter in network.named_parameters():
            if layer_name.startswith("score"):
                parameter.data.normal_(std=0.1)
        network.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_address(served):
    """Where the page listens with those networks, two scenes of them."""
    script = Path(__file__).with_name("served_page.py")
    with serving(served / "log.txt", script, served, PYTHONPATH=ROOT) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *CAMERA])
        yield chromium
        idle_pages.clear()
        chromium.close()


@pytest.fixture
def page(browser, tiny_address):
    with opened(browser, tiny_address) as page:
        yield page


@pytest.fixture(scope="module")
def page_of_the_file(browser, tiny_address):
    with opened(browser, tiny_address) as page:
        finished(page, 900, 600)
        yield page


@pytest.fixture
def shared_page(page_of_the_file):
    """A page that tests of one file share, at the top of its first tab.

    They leave its image and its networks as they are.
    """
    page = page_of_the_file
    page.set_viewport_size(DESKTOP)
    page.mouse.move(5, 5)
    page.locator("#tabs [role=tab]").first.click()
    page.evaluate("window.scrollTo(0, 0)")
    return page


def new_page(browser):
    page = browser.new_context(locale="en-GB").new_page()
    page.add_init_script(SLOW_TIMERS)
    return page


@contextmanager
def opened(browser, address, *, size=DESKTOP, scheme="light"):
    """The page, showing its first example. Errors in the browser's console fail the test.

    Tests take turns on a page of the browser, which then loads Gradio's scripts from its cache.
    """
    page = idle_pages.pop() if idle_pages else new_page(browser)
    page.set_default_timeout(WAIT)
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    errors = []

    def note(error):
        errors.append(str(error))

    page.on("pageerror", note)
    try:
        page.goto(address)
        expect(page.locator("#masks canvas:visible").first).to_be_visible(timeout=WAIT)
        yield page
        page.remove_listener("pageerror", note)
        page.context.clear_permissions()
        page.goto("about:blank")
    except BaseException:
        page.context.close()
        raise
    idle_pages.append(page)
    assert not errors, errors


def choose(page: Page, path: Path) -> None:
    """Upload the picture and wait until every network of the scene has answered or failed."""
    with Image.open(path) as image:
        width, height = image.size
    page.locator("#input-buttons input[type=file]").set_input_files(path)
    finished(page, width, height)


def finished(page: Page, width: int, height: int) -> None:
    """Wait until a picture of this size is compared."""
    page.wait_for_function(
        """([width, height]) => {
            const stages = [...document.querySelectorAll("#masks .stage")];
            return stages.length && stages.every((stage) => {
                const [w, h] = stage.style.aspectRatio.split("/").map(Number);
                const state = stage.parentElement.dataset.state;
                const drawn = stage.querySelector("canvas.map").width !== 300;
                return Math.abs(w * height - h * width) <= height
                    && (state === "failed" || (state === "ready" && drawn));
            });
        }""",
        arg=[width, height],
    )


def painted(page: Page, title: str, viewer: str = "#masks") -> np.ndarray:
    """(h, w, 4) RGBA of the map that a panel shows."""
    figure = page.locator(f"{viewer} figure", has=page.locator(f"strong:text-is('{title}')"))
    canvas = figure.locator("canvas.map")
    expect(canvas).to_be_visible(timeout=WAIT)
    width, height, data = canvas.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let text = "";
            for (let i = 0; i < data.length; i += 32768)
                text += String.fromCharCode(...data.subarray(i, i + 32768));
            return [width, height, btoa(text)];
        }"""
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


def open_tab(page: Page, name: str) -> None:
    page.locator(f"#tabs [role=tab]:visible:text-is('{name}')").click()  # faster than by role


def settled(page: Page) -> None:
    """Wait until the open tab shows its figures, and what follows from them is laid out."""
    running = page.locator("[role=tabpanel]:visible figure[data-state=running]")
    expect(running).to_have_count(0)
    page.wait_for_timeout(200)


def show_in_panel(page: Page, number: int, title: str, viewer: str = "#masks") -> None:
    """Choose what a panel, counted from 1, shows."""
    page.locator(viewer).get_by_label(f"Shown in panel {number}").select_option(label=title)


def screenshot(page: Page, name: str) -> None:
    """Keep the page's looks in artifacts/, if SEGMODELS_SCREENSHOTS is set."""
    if not os.environ.get("SEGMODELS_SCREENSHOTS"):
        return
    SCREENSHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
