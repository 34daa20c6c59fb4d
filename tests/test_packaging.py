"""The wheel and the source distribution, built and used outside the repository."""

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


def run(python, *arguments, cwd=None, status=0):
    """What a command prints; its exit status must be this one."""
    result = subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_it_is_the_wheel_that_is_used(python, outside):
    where = run(python, "-c", "import segmodels; print(segmodels.__file__)", cwd=outside)
    assert not Path(where.strip()).is_relative_to(ROOT)


HELP = """
import contextlib
from segmodels.cli.main import COMMANDS, main
for command in COMMANDS:
    with contextlib.suppress(SystemExit):
        main([command.__name__.rpartition(".")[2], "--help"])
"""


def test_every_command_has_help(python, outside):
    printed = run(python, "-c", HELP, cwd=outside)
    for command in COMMANDS:
        assert f"\nusage: segmodels {command.__name__.rpartition('.')[2]}" in f"\n{printed}"


PREDICT_AND_BENCHMARK = """
from segmodels.cli.main import main
assert main(["predict", "street.png", "--model", "model", "--out", "masks"]) == 0
assert main(["benchmark", "--model", "model", "--case", "480x360", "--seconds", "0.01"]) == 0
"""


def test_predict_and_benchmark_need_no_file_of_the_repository(python, outside):
    assert "480x360" in run(python, "-c", PREDICT_AND_BENCHMARK, cwd=outside)
    with Image.open(outside / "masks" / "street.png") as mask:
        assert mask.size == (60, 40)


def test_demo_serves_the_networks_that_are_named(python, outside, monkeypatch):
    monkeypatch.chdir(outside)
    log = outside / "log.txt"
    served = {"python": python, "SEGMODELS_MODELS": outside / "model"}
    with serving(log, "-m", "segmodels", "demo", **served) as url:
        page = run(python, "-c", f"import httpx; print(httpx.get({url!r}).text)", cwd=outside)
    assert "segment" in page.lower()
    assert str(ROOT) not in log.read_text()


def test_demo_without_its_extra_says_what_to_install(python, outside):
    code = "import sys; sys.modules['gradio'] = None; from segmodels.cli.main import main; "
    printed = run(python, "-c", code + "sys.exit(main(['demo']))", cwd=outside, status=1)
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
