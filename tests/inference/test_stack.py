"""TIFF stacks: each page as the image that it is, and results known again."""

import json

import numpy as np
import pytest
from PIL import Image

from segmodels import PictureError, Segmenter, UNet
from segmodels.cli.main import main
from segmodels.data.image_io import read_image
from segmodels.inference.result_files import Job, Origin
from segmodels.inference.stack import is_stack, predict_stack, read_stack_metadata
from tests.support.datasets import CLASS_NAMES

ORIGIN = Origin("unet-tiny", "0" * 64, opacity=0.25)
SIZES = [(30, 20), (30, 20), (16, 24), (30, 20)]  # width, height


def write_stack(path, sizes=SIZES, seed=0):
    random = np.random.default_rng(seed)
    pages = [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def pages_of(path):
    with Image.open(path) as image:
        return [np.array(page_at(image, page)) for page in range(image.n_frames)]


def page_at(image, page):
    image.seek(page)
    return image


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(UNet.from_pretrained(model), "cpu", "fp32")


def job_for(path, out):
    out.mkdir(exist_ok=True)
    return Job(path, out / "ids.tif", out / "overlay.tif")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_page_is_segmented_as_the_image_that_it_is(segmenter, tmp_path, batch_size):
    path = write_stack(tmp_path / "stack.tif")
    job = job_for(path, tmp_path / "out")
    done = list(predict_stack(job, segmenter, ORIGIN, batch_size=batch_size))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected = [segmenter(read_image(path, page=page)) for page in range(4)]
    for ids, overlay, result in zip(
        pages_of(job.class_ids), pages_of(job.overlay), expected, strict=True
    ):
        assert np.array_equal(ids, result.class_map)
        assert np.array_equal(overlay, np.array(result.overlay(0.25)))
    with Image.open(job.class_ids) as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [v for color in segmenter.model.palette for v in color]
        assert json.loads(image.tag_v2[270])["classes"] == CLASS_NAMES
    assert read_stack_metadata(job.class_ids)["kind"] == "class ids"
    assert read_stack_metadata(job.overlay)["opacity"] == "0.25"


def test_only_a_tiff_of_several_images_is_a_stack(tmp_path):
    assert is_stack(write_stack(tmp_path / "stack.tif"))
    assert not is_stack(write_stack(tmp_path / "one.tif", SIZES[:1]))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    assert not is_stack(tmp_path / "damaged.tif")
    assert read_stack_metadata(tmp_path / "stack.tif") == {}
    assert read_stack_metadata(tmp_path / "damaged.tif") == {}


def test_a_page_that_cannot_be_read_is_named_and_leaves_no_file(segmenter, tmp_path, monkeypatch):
    job = job_for(write_stack(tmp_path / "stack.tif"), tmp_path / "out")
    monkeypatch.setattr(segmenter, "max_pixels", 500)  # less than a page of 30 x 20 has
    with pytest.raises(PictureError, match=r"page 0: .*pixels"):
        list(predict_stack(job, segmenter, ORIGIN))
    assert not list((tmp_path / "out").iterdir())


def test_predict_takes_stacks_beside_images_and_resumes(model, tmp_path, capsys):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    write_stack(pictures / "cells.tif")
    Image.new("RGB", (30, 20)).save(pictures / "cells.png")
    command = ["predict", str(pictures), "--model", str(model), "--out", str(out)]
    assert main(command) == 0
    names = {"cells.png", "cells_overlay.png", "cells.tif", "cells_overlay.tif"}
    assert {path.name for path in out.iterdir()} == names
    assert "1 of 1 stacks segmented" in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*command, "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert "1 of them already had results" in capsys.readouterr().out
    write_stack(pictures / "cells.tif", seed=1)  # another stack of that name
    assert main([*command, "--resume"]) == 0
    assert (out / "cells_tif.tif").exists()
    assert (out / "cells.tif").stat().st_mtime_ns == times[out / "cells.tif"]


def test_results_beside_the_stacks_are_not_segmented_again(model, tmp_path, capsys):
    write_stack(tmp_path / "cells.tif")
    command = ["predict", str(tmp_path), "--model", str(model), "--out", str(tmp_path)]
    for _ in range(2):
        assert main(command) == 0
        assert len(list(tmp_path.iterdir())) == 3
    assert "2 results of an earlier run are not segmented again" in capsys.readouterr().out
