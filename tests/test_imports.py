"""What importing the package and the page loads. The direction of imports inside the package is
checked by import-linter, see its contracts in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from segmodels import UNet

ROOT = Path(__file__).parents[1]


def loaded_with(module, **environment):
    """Top-level names of the modules that are loaded with `module`, in a process of its own."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


def test_importing_the_package_loads_neither_gradio_nor_training_libraries():
    loaded = loaded_with("segmodels")
    assert {"segmodels", "torch"} <= loaded
    heavy = {"gradio", "kornia", "scipy", "sklearn", "accelerate", "matplotlib", "transformers"}
    assert not loaded & {*heavy, "app"}


def test_the_command_line_loads_gradio_for_the_demo_alone():
    assert "gradio" not in loaded_with("segmodels.cli.main")


def test_the_page_needs_no_library_of_an_extra(tmp_path):
    UNet(class_names=["cell"], base_channels=2).save_pretrained(tmp_path)
    loaded = loaded_with("app", SEGMODELS_MODELS=str(tmp_path))
    assert {"app", "gradio"} <= loaded
    assert not loaded & {"kornia", "scipy", "sklearn", "onnx", "accelerate", "transformers"}
