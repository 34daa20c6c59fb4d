"""What importing the package and the page loads. The direction of imports inside the package is
checked by import-linter, see its contracts in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segmodels import UNet

ROOT = Path(__file__).parents[1]


IMPORT = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Top-level names of all modules that are loaded once each of these is, one after the other."""
    model = tmp_path_factory.mktemp("model")
    UNet(class_names=["cell"], base_channels=2).save_pretrained(model)
    modules = ["segmodels", "segmodels.cli.main", "app"]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT, *modules],
        cwd=ROOT,
        env={**os.environ, "SEGMODELS_MODELS": str(model)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = map(str.split, result.stdout.splitlines())
    return dict(zip(modules, map(set, names), strict=True))


def test_importing_the_package_loads_neither_gradio_nor_training_libraries(loaded):
    loaded = loaded["segmodels"]
    assert {"segmodels", "torch"} <= loaded
    heavy = {"gradio", "kornia", "scipy", "sklearn", "accelerate", "matplotlib", "transformers"}
    assert not loaded & {*heavy, "app"}


def test_the_command_line_loads_gradio_for_the_demo_alone(loaded):
    assert "gradio" not in loaded["segmodels.cli.main"]


def test_the_page_needs_no_library_of_an_extra(loaded):
    loaded = loaded["app"]
    assert {"app", "gradio"} <= loaded
    assert not loaded & {"kornia", "scipy", "sklearn", "onnx", "accelerate", "transformers"}
