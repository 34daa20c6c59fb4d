"""What the repository promises about itself."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmodels
from segmodels.demo import strings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_a_space_installs_the_package_and_its_extra_demo():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    demo = PROJECT["optional-dependencies"]["demo"]
    expected = PROJECT["dependencies"] + demo
    assert [line for line in lines if line and not line.startswith("#")] == expected


def test_the_version_has_one_source():
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", segmodels.__version__)


@pytest.mark.weights
def test_every_weights_file_is_small_enough_and_half_precision():
    files = list(ROOT.glob("weights_card/*/model.safetensors"))
    assert len(files) >= 3
    for file in files:
        assert file.stat().st_size <= 62_000_000
        header = file.read_bytes()[8:100_000].decode("latin-1")
        assert set(re.findall(r'"dtype":"(F\w+)"', header)) == {"F16"}


def test_every_example_names_its_origin():
    notice = (ROOT / "examples" / "NOTICE.txt").read_text()
    ours = ("NOTICE.txt", "__pycache__")
    files = [path for path in (ROOT / "examples").iterdir() if path.name not in ours]
    pictures = [path.name for path in files if path.suffix not in (".py", ".ipynb")]
    assert pictures
    assert all(name in notice for name in pictures)


def test_the_label_of_an_example_fits_its_picture():
    classes = (ROOT / "examples/labels/classes.txt").read_text().split()
    for path in (ROOT / "examples/labels").glob("*.png"):
        with Image.open(path) as label, Image.open(ROOT / f"examples/{path.stem}.jpg") as picture:
            assert label.size == picture.size
            assert set(np.unique(np.array(label))) <= {*range(len(classes)), 255}


def test_the_drawings_take_the_pages_colour_and_have_alternative_texts():
    drawings = {path.stem: path.read_text() for path in ROOT.glob("segmodels/demo/assets/*.svg")}
    assert set(drawings) == set(strings.FIGURE_ALTS) == set(strings.NETWORKS)
    assert all("currentColor" in drawing for drawing in drawings.values())


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_badges_say_what_the_project_says():
    badges = {path.stem: path.read_text() for path in ROOT.glob("docs/badges/*.svg")}
    minors = [line for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert " | ".join(line.rpartition(" ")[2] for line in minors) in badges["python"]
    assert PROJECT["license"] in badges["licence"]
