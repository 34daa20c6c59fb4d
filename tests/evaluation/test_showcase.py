import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import Segmenter, UNet
from segmodels.cli.main import main
from segmodels.evaluation.qualitative import CELL, GAP, LINE
from segmodels.evaluation.showcase import MAX_BYTES, showcase, write_showcase


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "unet-own"
    UNet(class_names=["a", "b"], base_channels=2, dropout=0.1).save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_a_row_shows_picture_classes_and_confidence(folder, picture):
    segmenter = Segmenter(UNet.from_pretrained(folder), "cpu", "fp32")
    image = np.array(showcase(segmenter, [picture], "drawn by a test"))
    panels = [image[2 * LINE :, GAP + n * (CELL + GAP) :][:240, :CELL] for n in range(3)]
    result = segmenter(picture)
    np.testing.assert_array_equal(panels[0], result.picture)
    np.testing.assert_array_equal(panels[1], np.array(result.overlay(0.7)))
    grey = 255 * (result.confidence - 0.2) / 0.8  # 0.2 is black, 1 white
    np.testing.assert_allclose(panels[2][..., 0], grey, atol=1)
    assert (image[-LINE:] < 128).any()  # the credit


def test_the_file_is_small_whatever_it_shows(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    write_showcase(Image.fromarray(noise), tmp_path / "examples.jpg")
    assert (tmp_path / "examples.jpg").stat().st_size <= MAX_BYTES
    with Image.open(tmp_path / "examples.jpg") as image:
        assert image.size == (500, 400)


def test_the_card_command_shows_pictures_and_keeps_them(folder, picture, capsys):
    figures = '{"split": "test", "pictures": 1, "classes": {}, "mean_iou": 0.5, "boundary_f1": null'
    figures += ', "pixel_accuracy": 0.5, "mean_accuracy": 0.5, "frequency_weighted_iou": 0.5}'
    (folder / "evaluation.json").write_text(figures)
    assert main(["card", str(folder)]) == 0
    assert "examples.jpg" not in (folder / "README.md").read_text()
    assert main(["card", str(folder), "--pictures", str(picture), "--credit", "ours"]) == 0
    assert "](examples.jpg)" in (folder / "README.md").read_text()
    assert main(["card", str(folder)]) == 0  # without them the picture that is there stays
    assert "](examples.jpg)" in (folder / "README.md").read_text()
    capsys.readouterr()
    assert main(["card", str(folder), "--pictures", str(folder / "README.md")]) == 1
    assert "is not a picture" in capsys.readouterr().err


def test_the_card_command_tells_what_is_missing(folder, tmp_path, capsys):
    assert main(["card", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["card", str(folder)]) == 1
    assert "evaluation.json cannot be read" in capsys.readouterr().err
