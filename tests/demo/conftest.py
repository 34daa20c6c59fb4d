"""Small networks behind the page, without the page."""

import numpy as np
import pytest
from PIL import Image

from segmodels import FCN, SegNet, UNet
from segmodels.demo.service import ComparisonService
from tests.support.networks import tiny_network


@pytest.fixture(scope="session")
def networks():
    """One of each for the road scene, and one for another."""
    return [
        tiny_network(FCN, "fcn-camvid", at_once=False),
        tiny_network(UNet, "unet-camvid"),
        tiny_network(SegNet, "segnet-camvid", dropout=0.5),
        tiny_network(UNet, "unet-msrc", "everyday", ["cat", "dog", "sky"]),
    ]


@pytest.fixture
def service(networks):
    return ComparisonService(networks)


@pytest.fixture
def street(tmp_path):
    """A picture file, 60 x 40 pixels."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 8, 3), np.uint8)
    path = tmp_path / "my street.png"
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return str(path)
