"""Videos and the camera, in a real Chromium."""

import re

import httpx
from playwright.sync_api import expect

from segmodels.demo import strings
from tests.support.clips import read_clip, write_clip
from tests.support.pages import WAIT, open_tab, painted, screenshot


def give(page, path):
    page.locator("#video input[type=file]").set_input_files(path)
    expect(page.locator("#video video")).to_be_visible()


def test_a_video_becomes_the_masks_side_by_side_and_can_be_stopped(
    shared_page, tiny_address, tmp_path
):
    page = shared_page
    open_tab(page, strings.TABS["video"])
    (tmp_path / "notes.mp4").write_text("no video")
    page.locator("#video-start").click()
    note = page.locator("#video-note")
    expect(note).to_contain_text("Choose a video first")
    give(page, write_clip(tmp_path / "street.mp4", sound=True))
    page.locator("#video-start").click()
    result = page.locator("#video-result video")
    expect(result).to_be_visible(timeout=WAIT)
    expect(note).to_contain_text("6 frames")
    expect(note).to_contain_text("The sound is left out")
    link = page.locator("#video-result a[download]").get_attribute("href")
    (tmp_path / "result.mp4").write_bytes(httpx.get(httpx.URL(tiny_address).join(link)).content)
    images, times = read_clip(tmp_path / "result.mp4")
    assert len(images) == 6
    assert times[1] == 0.1
    # The browser plays it, three panels wide.
    page.wait_for_function("document.querySelector('#video-result video').videoWidth > 3 * 64")
    screenshot(page, "video")
    many = write_clip(tmp_path / "long.mp4", images * 30)
    page.locator("#video").get_by_label("Remove Video").or_(
        page.locator("#video").get_by_label("Clear")
    ).first.click()
    give(page, many)
    page.locator("#video-start").click()
    expect(note).to_contain_text(re.compile("Frame \\d+ of 180"))
    page.locator("#video-stop").click()
    expect(note).to_contain_text(strings.VIDEO_STOPPED)
    page.wait_for_timeout(1500)
    expect(note).to_contain_text(strings.VIDEO_STOPPED)  # nothing runs any more


def test_the_camera_is_segmented_live_until_it_is_stopped(shared_page):
    page = shared_page
    open_tab(page, strings.TABS["camera"])
    camera = page.locator("#camera")
    status = camera.locator(".status")
    expect(status).to_have_text("")  # on request only
    camera.get_by_role("button", name="Start camera").click()
    expect(status).to_have_text(re.compile(r"[\d.]+ frames per second"))
    mask = painted(page, "FCN-8s", "#camera-view")
    assert mask.shape[0] > 100
    first = page.locator("#camera-view img").first.get_attribute("src")
    page.wait_for_function(
        "first => document.querySelector('#camera-view img').src !== first", arg=first
    )
    page.locator("#camera-network input").click()
    page.get_by_role("option", name="SegNet-Basic (segnet-camvid)").click()
    expect(page.locator("#camera-view figcaption strong")).to_have_text(re.compile("SegNet"))
    screenshot(page, "camera")
    open_tab(page, strings.TABS["areas"])
    expect(status).to_have_text(strings.CAMERA["hidden"])  # before the next frame
    open_tab(page, strings.TABS["camera"])
    expect(camera.get_by_role("button", name="Start camera")).to_be_visible()
