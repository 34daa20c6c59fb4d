"""`segmodels predict`."""

import numpy as np
import pytest
from PIL import Image

from segmodels import Segmenter, load_model
from segmodels.cli.main import main


def test_predict_writes_exact_ids_and_overlays(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["predict", str(pictures / "b.webp"), "--model", str(model), "--out", str(out)]) == 0
    )
    expected = Segmenter(load_model(model))(pictures / "b.webp")
    with Image.open(out / "b.png") as ids:
        assert np.array_equal(np.array(ids), expected.class_map)
    with Image.open(out / "b_overlay.png") as overlay:
        assert np.array_equal(np.array(overlay), np.array(expected.overlay(0.5)))
    assert "1 of 1 pictures" in capsys.readouterr().out


def test_predict_opens_folders_and_keeps_equal_stems_apart(model, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("a.png", "a_overlay.png", "a_png.png", "a_png_overlay.png", "b.png", "b_overlay.png")
    }
    with Image.open(out / "a_png.png") as ids:
        expected = Segmenter(load_model(model))(pictures / "a.png").class_map
        assert np.array_equal(np.array(ids), expected)


def test_one_bad_picture_is_reported_and_the_rest_go_on(model, pictures, tmp_path, capsys):
    (pictures / "b.webp").write_bytes(b"cut off")
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 pictures" in printed.out
    assert "b.webp" in printed.err
    assert (out / "a.png").exists()
    assert not (out / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/where/at all"], "there is no folder no/where/at all"),
        (["--opacity", "2"], "--opacity must be from 0 to 1"),
        (["--working-size", "0"], "--working-size must be at least 1"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments, message, model, pictures, capsys):
    command = ["predict", str(pictures), "--model", str(model), *arguments]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("segmodels: ")
    assert message in printed


def test_an_empty_folder_is_told(model, tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--model", str(model)]) == 1
    assert "holds no picture files" in capsys.readouterr().err
