"""Images of other channels than 1 and 3."""

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import PictureError, Segmenter, UNet
from segmodels.inference.decoded_image import DecodedImage
from tests.support.tiff import write_multispectral

FIVE = np.random.default_rng(0).integers(0, 256, (12, 20, 5), np.uint8)


def test_an_array_keeps_its_channels_and_shows_the_first_three():
    image = DecodedImage.read(FIVE, channels=5)
    assert np.array_equal(image.samples, FIVE)
    assert np.array_equal(image.array, FIVE[..., :3])
    assert np.array_equal(image.pixels(20, 5)[0].movedim(0, 2), FIVE)
    two = DecodedImage.read(FIVE[..., :2], channels=2)
    assert np.array_equal(two.array, np.pad(FIVE[..., :2], ((0, 0), (0, 0), (0, 1))))
    assert two.digest != image.digest


def test_each_channel_is_resized_as_a_grey_image_is():
    pixels = DecodedImage.read(FIVE, channels=5).pixels(10, 5)
    assert pixels.shape == (1, 5, 6, 10)
    expected = Image.fromarray(FIVE[..., 4]).resize((10, 6), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[0, 4], np.array(expected))


def test_files_of_many_channels_are_read(tmp_path):
    tiff = write_multispectral(tmp_path / "five.tif", FIVE)
    np.save(tmp_path / "five.npy", FIVE)
    for path in (tiff, tmp_path / "five.npy"):
        assert np.array_equal(DecodedImage.read(path, channels=5).samples, FIVE)
        with pytest.raises(PictureError, match="has 5 channels"):
            DecodedImage.read(path)


def test_an_npy_file_is_an_image_for_rgb_and_grey_too(tmp_path):
    np.save(tmp_path / "rgb.npy", FIVE[..., :3])
    np.save(tmp_path / "grey.npy", FIVE[..., 0])
    assert np.array_equal(DecodedImage.read(tmp_path / "rgb.npy").array, FIVE[..., :3])
    grey = DecodedImage.read(tmp_path / "grey.npy", channels=1)
    assert np.array_equal(grey.pixels(20, 1)[0, 0], FIVE[..., 0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (FIVE[..., :3], r"uint8 array of shape \(12, 20, 3\); expected .*\(H, W, 5\)"),
        (FIVE / 255, "got a float64 array"),
        (Image.new("RGB", (3, 3)), "got Image; expected a file or .* has 5 input channels"),
        (DecodedImage.read(FIVE[..., :3]), "the image has 3 channels, but the network expects 5"),
    ],
)
def test_other_channels_than_the_networks_are_refused(image, message):
    model = UNet(class_names=["a", "b"], in_channels=5, base_channels=2)
    with pytest.raises(PictureError, match=message):
        Segmenter(model, "cpu", "fp32")(image)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_network_of_many_channels_segments(channels):
    torch.manual_seed(0)
    mean, std = [0.1 * (c + 1) for c in range(channels)], [0.3] * channels
    model = UNet(
        class_names=["a", "b", "c"],
        in_channels=channels,
        base_channels=4,
        image_mean=mean,
        image_std=std,
    ).eval()
    array = FIVE[..., :channels]
    pixels = torch.from_numpy((array / 255 - mean) / std).float().movedim(2, 0)[None]
    with torch.no_grad():
        expected = model(pixels)[0].softmax(0)
    segmenter = Segmenter(model, "cpu", "fp32")
    np.testing.assert_allclose(segmenter.probabilities(array), expected, atol=1e-5)
    result = segmenter(array)
    assert np.array_equal(result.class_map, expected.argmax(0))
    assert result.overlay().size == (20, 12)
