"""A small model and pictures for the commands."""

import numpy as np
import pytest
from PIL import Image

from segmodels import UNet
from tests.support.datasets import CLASS_NAMES
from tests.support.trainings import pixels_for_plots  # noqa: F401


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, two of one stem, and of other files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "b.webp"):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / name)
    for name in ("notes.txt", "drawing.pdf"):
        (folder / name).write_text("no picture")
    return folder
