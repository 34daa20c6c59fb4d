"""What can be downloaded from the page and asked from its API, by chromium and gradio_client."""

import json
import re
import zipfile

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import expect

from segmodels import Segmenter, load_model
from segmodels.inference.results import read_metadata
from tests.support.pages import CROSSING, WAIT, choose, open_tab, screenshot
from tests.support.serving import PATIENCE


def downloaded(page, name, folder):
    with page.expect_download() as download:
        page.locator(f'#files a[download="{name}"]').click()
    assert download.value.suggested_filename == name
    download.value.save_as(folder / name)
    return folder / name


def test_everything_can_be_downloaded_at_full_size(page, served, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (100, 150, 3), np.uint8)
    photo = Image.fromarray(noise).resize((1500, 1000), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "wide.png")
    choose(page, tmp_path / "wide.png")
    open_tab(page, "Downloads")
    expect(page.locator("#files a")).to_have_count(10, timeout=WAIT)
    segmenter = Segmenter(load_model(served / "weights_card/segnet-camvid"), "cpu")
    result = segmenter(tmp_path / "wide.png")
    with Image.open(downloaded(page, "wide_segnet-camvid.png", tmp_path)) as ids:
        assert ids.mode == "P"
        assert np.array_equal(np.array(ids), result.class_map)
        assert np.array_equal(np.array(ids.convert("RGB")), np.array(result.colored()))
    with Image.open(downloaded(page, "wide_segnet-camvid_overlay.png", tmp_path)) as overlay:
        assert np.array_equal(np.array(overlay), np.array(result.overlay()))
    summary = json.loads(downloaded(page, "wide_summary.json", tmp_path).read_text())
    assert summary["size"] == [1500, 1000]
    assert summary["models"]["segnet-camvid"]["areas"] == pytest.approx(result.areas())
    with Image.open(downloaded(page, "wide_comparison.png", tmp_path)) as comparison:
        assert 1590 < comparison.width <= 1600
    archive = downloaded(page, "wide_segmodels.zip", tmp_path)
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == 9
        classes = json.loads(opened.read("wide_classes.json"))["segnet-camvid"]
        ids = (tmp_path / "wide_segnet-camvid.png").read_bytes()
        assert opened.read("wide_segnet-camvid.png") == ids
    assert [entry["name"] for entry in classes["classes"]] == result.class_names
    assert (
        json.loads(read_metadata(tmp_path / "wide_segnet-camvid.png")["classes"])
        == classes["classes"]
    )
    code = page.locator("#code")
    expect(code).to_contain_text('SegNet.from_pretrained("weights_card/segnet-camvid")')
    expect(code).to_contain_text('segmenter("wide.png")')
    screenshot(page, "downloads")
    # And each class map at its panel, under the same name.
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the class map of SegNet-Basic").click()
    assert download.value.suggested_filename == "wide_segnet-camvid.png"
    download.value.save_as(tmp_path / "panel.png")
    with Image.open(tmp_path / "panel.png") as ids:
        assert np.array_equal(np.array(ids), result.class_map)


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def test_segment_answers_with_exact_class_ids(client, published):
    for name, expected in published.items():
        file = client.predict(handle_file(CROSSING), name, api_name="/segment")
        with Image.open(file) as ids:
            assert np.array_equal(np.array(ids), expected.class_map)


def test_compare_answers_with_figures(client, published):
    answer = client.predict(handle_file(CROSSING), "road", api_name="/compare")
    maps = [result.class_map for result in published.values()]
    assert answer["scene"] == "road"
    assert answer["size"] == [900, 600]
    same = (maps[0] == maps[1]) & (maps[1] == maps[2])
    assert answer["agreement"] == pytest.approx(same.mean())
    assert list(answer["models"]) == list(published)
    unet = answer["models"]["unet-camvid"]
    assert set(unet) == {"seconds", "parameters", "areas"}
    assert unet["areas"] == pytest.approx(published["unet-camvid"].areas())


def test_compare_tells_of_a_network_that_failed(tiny_address, tmp_path):
    Image.new("RGB", (13, 20), (80, 90, 100)).save(tmp_path / "thin.png")
    client = Client(tiny_address, verbose=False, httpx_kwargs={"timeout": PATIENCE})
    answer = client.predict(handle_file(tmp_path / "thin.png"), "road", api_name="/compare")
    assert answer["models"]["segnet-camvid"] == {
        "error": "The network failed on this image; a smaller image may work."
    }
    assert "areas" in answer["models"]["unet-camvid"]
    with pytest.raises(AppError, match="The network failed on this image"):
        client.predict(handle_file(tmp_path / "thin.png"), "segnet-camvid", api_name="/segment")


@pytest.mark.parametrize(
    ("content", "model", "message"),
    [
        (b"no picture", "unet-camvid", "is not an image"),
        (CROSSING.read_bytes()[:5000], "unet-camvid", "damaged, truncated"),
        (CROSSING.read_bytes(), "no-such-model", "Unknown model 'no-such-model'"),
    ],
)
def test_programs_are_told_what_is_wrong(client, tmp_path, content, model, message):
    (tmp_path / "given.jpg").write_bytes(content)
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(tmp_path / "given.jpg"), model, api_name="/segment")


def test_the_endpoints_are_the_two_that_are_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/segment", "/compare"}
    names = {name: [p["parameter_name"] for p in e["parameters"]] for name, e in endpoints.items()}
    assert names == {"/segment": ["picture", "model"], "/compare": ["picture", "scene"]}


def test_the_page_documents_them(page):
    open_tab(page, "API")
    tab = page.get_by_role("tabpanel").filter(has_text="gradio_client")
    expect(tab).to_contain_text('api_name="/segment"')
    expect(tab).to_contain_text(re.compile(r"Models: fcn-camvid, unet-camvid, .*segnet-camvid"))
