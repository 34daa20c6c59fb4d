"""How images come to the page, and what becomes of them."""

import base64
import io
import re
import time

import httpx
import numpy as np
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import expect

from tests.support.pages import PHONE, ROOT, WAIT, choose, finished, open_tab, opened, screenshot
from tests.support.serving import PATIENCE


def noise(width, height, seed=0):
    """An image of smoothed noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_data(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# Gives the page a file by an event, as the browser does.
DISPATCH = """([kind, data, name]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
        : new DragEvent("drop", { ...options, dataTransfer: transfer });
    document.querySelector("#introduction").dispatchEvent(event);
}"""


def test_images_are_replaced_pasted_dropped_anywhere_and_given_again(page, tmp_path):
    noise(70, 50).save(tmp_path / "first.png")
    choose(page, tmp_path / "first.png")  # while another is shown
    page.evaluate(DISPATCH, ["paste", as_data(noise(50, 70)), "pasted.png"])
    finished(page, 50, 70)
    page.evaluate(DISPATCH, ["drop", as_data(noise(64, 32)), "dropped.png"])
    finished(page, 64, 32)
    recent = page.locator("#examples .recent button")
    expect(recent).to_have_count(3)  # the last ones, the latest first
    expect(recent.first).to_have_attribute("aria-label", "Compare again: dropped.png")
    page.get_by_role("button", name="Compare again: first.png").click()
    finished(page, 70, 50)
    expect(recent.first).to_have_attribute("aria-label", "Compare again: first.png")
    screenshot(page, "recent")


def test_what_is_no_image_is_explained_nothing_asks_for_one_and_the_webcam_takes_one(
    page, tmp_path
):
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#input-buttons input[type=file]").set_input_files(tmp_path / "notes.png")
    alert = page.get_by_role("alert").filter(has_text="notes.png is not a")
    expect(alert).to_be_visible()
    expect(alert).not_to_contain_text("/tmp")
    page.locator("#picture").get_by_label("Remove Image").click()
    expect(page.locator("#masks .viewer")).to_be_hidden()
    page.locator("#compare").click()
    expect(page.get_by_role("alert").filter(has_text="Choose an image first")).to_be_visible()
    page.locator("#picture").get_by_label("Capture from camera").click()
    page.locator("#picture").get_by_text("Click to Access Webcam").click()
    page.locator("#picture").get_by_label("capture photo").click()
    expect(page.locator("#masks figure[data-state=ready]")).to_have_count(3)


def test_the_state_of_an_example_is_in_the_address_and_an_image_of_ones_own_is_not(
    browser, tiny_address, tmp_path
):
    with opened(browser, tiny_address) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#examples button[data-key=crossing]").click()
        finished(page, 900, 600)
        # An example is shared by link, an image of one's own as an image.
        share = page.locator("#masks").get_by_role("button", name="Share")
        expect(share).to_have_attribute("title", "Copy a link to what is shown")
        share.click()
        expect(page.locator("#masks .readout")).to_have_text("Link copied.")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.url
        assert "example=crossing" in copied
        page.locator("#masks").get_by_role("radio", name="Slider").check()
        open_tab(page, "Agreement")
        expect(page).to_have_url(re.compile("example=crossing"))
        expect(page).to_have_url(re.compile("view=split"))
        expect(page).to_have_url(re.compile("tab=agreement"))
        address = page.url
        noise(70, 50).save(tmp_path / "mine.png")
        choose(page, tmp_path / "mine.png")  # which is no part of any address
        assert "example" not in page.url
        with page.expect_download() as download:
            share.click()
        assert download.value.suggested_filename == "mine_comparison.png"
        download.value.save_as(tmp_path / "shared.png")
        with Image.open(tmp_path / "shared.png") as image:
            assert image.width > 1500
        assert "mine" not in page.url
        page.goto(address)
        expect(page.locator("#examples button[aria-current]")).to_have_attribute(
            "data-key", "crossing"
        )
        expect(page.locator("#masks .panels")).to_have_attribute("data-view", "split")
        expect(page.locator("#agreement .viewer")).to_be_visible()
        page.goto(f"{tiny_address}/?scene=animals&example=cat")
        expect(page.locator("#masks .panels strong")).to_have_text(["U-Net"])
        finished(page, 451, 300)


def test_notes_tell_what_is_dropped_of_an_image_and_which_scene_may_fit_better(page, tmp_path):
    first, second = noise(70, 50), noise(70, 50, seed=1)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    choose(page, tmp_path / "stack.tif")
    expect(page.locator("#image-note")).to_contain_text("several pages: the first is used")
    # Browsers do not read the format, so that this is a preview.
    page.wait_for_function("document.querySelector('#picture img').naturalWidth === 70")
    half = noise(50, 70)
    half.putalpha(128)
    half.save(tmp_path / "half.png")
    choose(page, tmp_path / "half.png")
    expect(page.locator("#image-note")).to_contain_text(
        "transparent parts; they are placed on white"
    )
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    choose(page, tmp_path / "moving.gif")
    expect(page.locator("#image-note")).to_contain_text("animated: its first frame is used")
    noise(19, 24).save(tmp_path / "animal.png")
    choose(page, tmp_path / "animal.png")
    note = page.locator("#outside-note")
    expect(note).to_contain_text("probably outside what they were trained for")
    note.get_by_role("button", name="Try People and animals").click()
    expect(page.locator("#scene").get_by_label("People and animals")).to_be_checked()
    expect(page.locator("#masks .panels strong")).to_have_text(["U-Net"])
    finished(page, 19, 24)  # the same image


def test_whoever_waits_sees_the_place_in_the_queue_and_the_last_result(
    page, served, tiny_address, tmp_path
):
    finished(page, 900, 600)
    noise(17, 21).save(tmp_path / "slow.png")
    hold = served / "hold"
    hold.touch()
    try:
        client = Client(tiny_address, verbose=False, httpx_kwargs={"timeout": PATIENCE})
        job = client.submit(handle_file(tmp_path / "slow.png"), "road", api_name="/compare")
        end = time.monotonic() + WAIT / 1000
        while not (served / "held").exists():  # it runs
            assert time.monotonic() < end
            time.sleep(0.1)
        noise(70, 50).save(tmp_path / "mine.png")
        page.locator("#input-buttons input[type=file]").set_input_files(tmp_path / "mine.png")
        note = page.locator("#queue-note")
        expect(note).to_contain_text(
            re.compile(r"Waiting: 1 call is ahead of yours, about \d+ s\.")
        )
        stage = page.locator("#masks .stage").first  # the last result stays
        expect(stage).to_have_css("aspect-ratio", "900 / 600")
        expect(stage.locator("canvas.map")).to_be_visible()
        screenshot(page, "queue")
    finally:
        hold.unlink()
    finished(page, 70, 50)
    expect(note).to_be_hidden()
    assert job.result()["scene"] == "road"


def test_a_link_shows_the_pages_own_title_and_image(tiny_address):
    html = httpx.get(f"{tiny_address}/").text
    assert '<meta property="og:title" content="FCN, U-Net and SegNet, side by side" />' in html
    assert 'content="Gradio"' not in html
    assert f'property="og:image" content="{tiny_address}/preview.jpg"' in html
    image = httpx.get(f"{tiny_address}/preview.jpg")
    assert Image.open(io.BytesIO(image.content)).size == (1200, 630)
    icon = httpx.get(f"{tiny_address}/favicon.ico")
    ours = ROOT / "segmodels/demo/assets/favicon.png"
    assert icon.content == ours.read_bytes()


def test_headings_and_text_have_one_typeface(shared_page):
    families = shared_page.locator("#introduction *, #masks strong, #tabs button").evaluate_all(
        "nodes => [...new Set(nodes.map((node) => getComputedStyle(node).fontFamily))]"
    )
    assert len(families) == 1
    assert "Source Sans" not in families[0]  # whose semibold file holds a few letters


def test_the_page_says_what_becomes_of_the_image(shared_page):
    expect(shared_page.locator("#privacy")).to_contain_text("deleted after 10 minutes")


def test_on_a_phone_the_masks_come_into_view_and_are_swiped(browser, tiny_address, tmp_path):
    with opened(browser, tiny_address, size=PHONE) as page:
        for scheme, size in {"light": (70, 50), "dark": (50, 70)}.items():
            page.emulate_media(color_scheme=scheme)
            page.evaluate("window.scrollTo(0, 0)")
            noise(*size).save(tmp_path / f"{scheme}.png")
            choose(page, tmp_path / f"{scheme}.png")
            stage = page.locator("#masks .stage").first
            expect(stage).to_be_in_viewport(ratio=0.9)
            widths = [box.bounding_box()["width"] for box in page.locator("#masks .stage").all()]
            assert min(widths) > 300
            panels = page.locator("#masks .panels")
            assert panels.evaluate("e => e.scrollWidth > 2.5 * e.clientWidth")
            panels.evaluate("e => e.scrollTo({ left: e.scrollWidth })")
            expect(page.locator("#masks .stage").nth(2)).to_be_in_viewport(ratio=0.9)
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
            screenshot(page, f"phone-{scheme}-swiped")
            panels.evaluate("e => e.scrollTo({ left: 0 })")
