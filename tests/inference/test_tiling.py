"""Tiles: how an image is cut, and what each must see beside itself."""

import numpy as np
import pytest
import torch

from segmodels import FCN, SegNet, UNet
from segmodels.inference import tiling
from tests.support.networks import network


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (FCN, {"at_once": False}),
        (FCN, {"stride": 32}),
        (UNet, {}),
        (UNet, {"encoder": "vgg16", "batch_norm": False}),
        (SegNet, {}),
    ],
)
def test_the_context_is_wider_than_any_network_sees(kind, arguments):
    """The gradient of one output pixel's logits reaches no input pixel beyond
    `tile_context`. (SegNet's VGG16
    variant, whose unpooling the gradient follows only one way, is compared below.)"""
    model = network(kind, **arguments)
    size = 2 * model.tile_context + 65
    pixels = torch.rand(1, 3, size, 32, requires_grad=True)
    model(pixels)[0, :, size // 2, 16].sum().backward()
    rows = pixels.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    reach = max(size // 2 - rows.min().item(), rows.max().item() - size // 2)
    assert 20 < reach <= model.tile_context


def test_an_image_of_more_than_a_tile_is_cut_into_aligned_tiles_that_cover_it_once():
    # tile_size 1600 leaves a core of 1600 - 2 * 288 = 1024 pixels.
    found = list(tiling.tiles(2000, 3000, 1600, 288))
    assert len(found) == 2 * 3
    covered = np.zeros((2000, 3000), int)
    for rows, columns in found:
        covered[rows, columns] += 1
        assert rows.start % 32 == columns.start % 32 == 0
        assert rows.stop - rows.start + 2 * 288 <= 1600
    assert (covered == 1).all()
    assert list(tiling.tiles(1600, 1600, 1600, 288)) == [(slice(0, 1600), slice(0, 1600))]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_indices_are_mirrored_as_numpy_pads(size):
    indices = torch.arange(-20, size + 25)
    expected = np.pad(np.arange(size), (20, 25), mode="reflect")
    assert tiling.mirrored(indices, size).tolist() == expected.tolist()


def test_the_smallest_tiles_have_a_core():
    context = 288
    size = tiling.smallest_tile_size(context)
    rows, columns = next(tiling.tiles(size + 1, size, size, context))
    assert rows.stop - rows.start == columns.stop - columns.start == 8 * tiling.STRIDE
