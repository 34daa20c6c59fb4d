"""What a visit leaves on the server's disk, in a real Chromium."""

import time

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from segmodels.demo.strings import TABS
from tests.support.pages import WAIT, finished, open_tab, opened, settled
from tests.support.server import PATIENCE, SWEPT, running, upload_folder, write_networks


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    models = write_networks(tmp_path_factory.mktemp("models"))
    with running(models, folder, prelude=SWEPT) as (address, _):
        yield address, folder


def test_every_file_of_a_visit_to_all_tabs_is_deleted(browser, demo, tmp_path):
    address, parent = demo
    folder = upload_folder(parent)
    permanent = set(folder.rglob("*.*"))
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    seen = set()
    with opened(browser, address) as page:
        page.locator("#input-buttons input[type=file]").set_input_files(tmp_path / "mine.png")
        finished(page, 60, 40)
        for tab in TABS.values():
            open_tab(page, tab)
            settled(page)
            seen |= set(folder.rglob("*.*"))
        open_tab(page, TABS["downloads"])
        expect(page.locator("#files a").first).to_be_visible(timeout=WAIT)
        links = [link.get_attribute("href") for link in page.locator("#files a").all()]
        assert links
        seen |= set(folder.rglob("*.*"))
        assert any("overlay" in path.name for path in seen)
        (parent / "sweep").touch()
        end = time.monotonic() + PATIENCE
        while set(folder.rglob("*.*")) - permanent:  # and the page is still open
            assert time.monotonic() < end
            time.sleep(0.2)
        for link in links:
            assert httpx.get(httpx.URL(address).join(link)).status_code == 404
    assert len(seen) > 5
