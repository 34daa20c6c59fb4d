"""The wheel and the source distribution, built and used outside the repository."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from segmodels import UNet
from segmodels.cli.main import COMMANDS
from tests.support.serving import serving

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """The Python of a new environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with a model and a picture, and nothing of the repository."""
    folder = tmp_path_factory.mktemp("outside")
    UNet(class_names=["road", "sky"], base_channels=2).save_pretrained(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "street.png")
    return folder


def run(python, *arguments, cwd=None):
    """What a program that ends well prints."""
    result = subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Runs commands, and prints the status and the output of each as JSON, behind where the package is.
COMMAND_LINE = """
import contextlib, io, json, sys
import segmodels
from segmodels.cli.main import main
answers = [segmodels.__file__]
for arguments in json.loads(sys.argv[1]):
    if arguments == ["demo"]:
        sys.modules["gradio"] = None
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    answers.append((status, output.getvalue()))
print(json.dumps(answers))
"""
NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]
PREDICT = ["predict", "street.png", "--model", "model", "--out", "masks"]
BENCHMARK = ["benchmark", "--model", "model", "--case", "480x360", "--seconds", "0.01"]


@pytest.fixture(scope="module")
def used(python, outside):
    """Where the package is, and {arguments: status and output} of the commands that use it."""
    commands = [*([name, "--help"] for name in NAMES), PREDICT, BENCHMARK, ["demo"]]
    printed = run(python, "-c", COMMAND_LINE, json.dumps(commands), cwd=outside)
    where, *answers = json.loads(printed)
    return where, dict(zip(map(tuple, commands), answers, strict=True))


def test_it_is_the_wheel_that_is_used(used):
    assert not Path(used[0]).is_relative_to(ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(used, name):
    status, printed = used[1][name, "--help"]
    assert status == 0
    assert printed.startswith(f"usage: segmodels {name}")


def test_predict_and_benchmark_need_no_file_of_the_repository(used, outside):
    assert used[1][tuple(PREDICT)][0] == 0
    status, printed = used[1][tuple(BENCHMARK)]
    assert status == 0
    assert "480x360" in printed
    assert "unknown" not in printed  # of the memory, which another process measures
    with Image.open(outside / "masks" / "street.png") as mask:
        assert mask.size == (60, 40)


def test_demo_serves_the_networks_that_are_named(python, outside, monkeypatch):
    monkeypatch.chdir(outside)
    log = outside / "log.txt"
    served = {"python": python, "SEGMODELS_MODELS": outside / "model"}
    with serving(log, "-m", "segmodels", "demo", **served) as url:
        page = httpx.get(url).text
    assert "segment" in page.lower()
    assert str(ROOT) not in log.read_text()


def test_demo_without_its_extra_says_what_to_install(used):
    status, printed = used[1]["demo",]
    assert status == 1
    assert 'pip install "segmodels[demo]"' in printed
    assert "Traceback" not in printed


def test_the_description_on_pypi_is_whole_without_the_repository(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (name for name in names if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert "segmodels/py.typed" in names
    assert "segmodels/demo/assets/viewer.js" in names
    description = metadata.get_payload()
    assert description.startswith("# segmodels\n")
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links
    assert all(link.startswith("https://") for link in links)


def test_the_source_distribution_holds_its_tests_and_they_run(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    for name in ("CHANGELOG.md", "SECURITY.md", "LICENSE", "app.py", "run.py"):
        assert (root / name).is_file(), name
    files = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")}
    assert files == {path.relative_to(root) for path in (root / "tests").rglob("*.py")}
    some = ["tests/utils/test_palette.py", "tests/test_repository.py", "tests/test_weights.py"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *some]
    result = subprocess.run(pytest, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
