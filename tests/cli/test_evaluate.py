"""`segmodels evaluate`."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from segmodels.cli.main import main
from tests.support.datasets import CLASS_NAMES, write_camvid


def test_evaluate_prints_a_table_and_writes_json(model, tmp_path, capsys):
    data = write_camvid(tmp_path / "data", test=3)
    report = tmp_path / "report.json"
    command = ["evaluate", "--model", str(model), "--data", str(data), "--json", str(report)]
    assert main(command) == 0
    written = json.loads(report.read_text())
    printed = capsys.readouterr().out
    assert written["pictures"] == 3
    assert f"{100 * written['mean_iou']:.2f}" in printed
    assert all(name in printed for name in CLASS_NAMES)


def test_evaluate_tells_of_missing_data(model, tmp_path, capsys):
    assert main(["evaluate", "--model", str(model), "--data", str(tmp_path)]) == 1
    assert "has no split 'test'" in capsys.readouterr().err


@pytest.fixture
def command(model, tmp_path):
    """`evaluate` of a copy of the model on two images."""
    data = write_camvid(tmp_path / "data", test=2)
    shutil.copytree(model, tmp_path / "unet-own")
    return ["evaluate", "--model", str(tmp_path / "unet-own"), "--data", str(data)]


@pytest.fixture
def no_evaluation(monkeypatch):
    """Nothing may be measured before the error is told."""

    def evaluate(*_, **__):
        raise AssertionError("measured before the outputs were checked")

    monkeypatch.setattr("segmodels.evaluation.evaluator.evaluate", evaluate)


def test_evaluate_writes_csv_sources_objects_and_membranes(command, tmp_path, capsys):
    table, report = tmp_path / "images.csv", tmp_path / "report.json"
    command += ["--csv", str(table), "--json", str(report), "--by-source"]
    assert main([*command, "--objects", "wall", "--objects", "sky", "--membrane", "wall"]) == 0
    printed = capsys.readouterr().out
    for words in ("objects of wall", "objects of sky", "v rand", "by source"):
        assert words in printed
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["000.png", "001.png"]
    written = json.loads(report.read_text())
    assert set(written["objects"]) == {"wall", "sky"}
    assert (written["split"], written["data"]) == ("test", "data")
    assert written["sources"][""]["pictures"] == 2


@pytest.mark.parametrize("option", ["--json", "--csv", "--grid"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    option, command, no_evaluation, tmp_path, capsys
):
    assert main([*command, option, str(tmp_path / "missing" / "file")]) == 1
    assert f"{option} {tmp_path}/missing/file cannot be written" in capsys.readouterr().err
    assert main([*command, option, str(tmp_path)]) == 1
    assert "is a folder; expected a file name" in capsys.readouterr().err


def test_a_readme_by_hand_is_told_before_the_work_and_stays(
    command, no_evaluation, tmp_path, capsys
):
    readme = tmp_path / "unet-own" / "README.md"
    readme.write_text("# Mine")
    assert main([*command, "--card"]) == 1
    assert "was not written by segmodels: add --overwrite" in capsys.readouterr().err
    assert readme.read_text() == "# Mine"


def test_other_errors_are_told_before_the_work_too(command, no_evaluation, tmp_path, capsys):
    def said(*options):
        assert main([*command, *options]) == 1
        return capsys.readouterr().err

    assert "--grid-images must be at least 1" in said("--grid-pictures", "0")
    assert "must be different files" in said("--json", "a.txt", "--csv", "a.txt")
    assert "no class 'cloud'" in said("--objects", "cloud")
    assert "no class 'cloud'" in said("--membrane", "cloud")
    assert "add --card" in said("--out-of-domain", "elsewhere")
    assert "evaluation.json cannot be read" in said("--card", "--out-of-domain", "elsewhere")
    (tmp_path / "unet-own" / "training.json").write_text("{")
    assert "training.json cannot be read" in said("--card")


def test_evaluate_writes_a_card_with_what_was_measured(command, tmp_path, capsys):
    readme = tmp_path / "unet-own" / "README.md"
    assert main([*command, "--card"]) == 0  # over the one that `save_pretrained` wrote
    assert "2 images of the split `test` of `data`" in readme.read_text()
    assert main([*command, "--card", "--by-source", "--out-of-domain", "Elsewhere"]) == 0
    assert "## Elsewhere\n" in readme.read_text()
    readme.write_text("# Mine")
    assert main([*command, "--card", "--overwrite"]) == 0
    assert "## Elsewhere\n" in readme.read_text()


def test_a_bad_label_is_named_and_the_metrics_of_the_rest_are_kept(command, tmp_path, capsys):
    label = tmp_path / "data" / "testannot" / "001.png"
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(label)
    report = tmp_path / "report.json"
    assert main([*command, "--json", str(report), "--grid", str(tmp_path / "grid.png")]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 images" in printed
    assert "001.png: " in printed
    assert "77" in printed
    written = json.loads(report.read_text())
    assert written["pictures"] == 1
    assert [error["image"] for error in written["errors"]] == ["001.png"]
    assert (tmp_path / "grid.png").exists()


def test_evaluate_draws_the_best_and_worst_images(command, tmp_path, capsys):
    grid = tmp_path / "grid.png"
    assert main([*command, "--grid", str(grid), "--grid-images", "1"]) == 0
    assert str(grid) in capsys.readouterr().out
    with Image.open(grid) as image:
        assert image.mode == "RGB"
