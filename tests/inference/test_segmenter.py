"""Pictures to class maps: against the bare network, at every size, in tiles, in each precision."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from segmodels import FCN, PictureError, Segmenter, SegNet, UNet
from segmodels.inference import segmenter as module
from segmodels.inference.mc_dropout import seeded_dropout
from tests.support.networks import network, picture


def assert_alike(found, expected):
    """Equal but for rounding, which in SegNet may flip a pooling index between near-equal values
    and so move a few pixels."""
    assert found.shape == expected.shape
    assert (np.abs(found - expected) > 2e-5).mean() < 0.002


def to_tensor(array):
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def by_hand(model, array):
    """Probabilities (C, H, W) of the bare network on the whole picture at its own size."""
    pixels = array.astype(np.float64) / 255
    pixels = (pixels - np.array(model.image_mean)) / np.array(model.image_std)
    with torch.no_grad():
        logits = model(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
    return logits.softmax(1)[0].numpy()


@pytest.mark.parametrize("kind", [FCN, UNet, SegNet])
def test_answers_are_those_of_the_bare_network(kind):
    model, array = network(kind), picture(37, 53)
    expected = by_hand(model, array)
    segmenter = Segmenter(model, "cpu", "fp32")
    result = segmenter(array)
    assert_alike(segmenter.probabilities(array), expected)
    assert_alike(result.confidence, expected.max(0))
    assert (result.class_map == expected.argmax(0)).mean() > 0.999
    assert result.class_map.dtype == np.uint8
    assert result.confidence.dtype == np.float32


def test_the_picture_is_scaled_to_the_working_size_and_the_answer_back():
    model, array = network(working_size=32), picture(40, 80)
    segmenter = Segmenter(model, "cpu", "fp32")
    # 80 x 40 -> 32 x 16; its probabilities then go back to 80 x 40 bilinearly.
    small = np.array(Image.fromarray(array).resize((32, 16), Image.Resampling.BILINEAR))
    expected = by_hand(model, small)
    assert segmenter.probabilities(array).shape == (3, 16, 32)
    assert_alike(segmenter.probabilities(array), expected)
    full = interpolate(torch.tensor(expected)[None], (40, 80), mode="bilinear")[0].numpy()
    result = segmenter(array)
    assert_alike(result.confidence, full.max(0))
    assert (result.class_map == full.argmax(0)).mean() > 0.999


def test_a_picture_smaller_than_the_working_size_gets_its_own_size_back():
    model, array = network(working_size=64), picture(10, 20)
    result = Segmenter(model, "cpu", "fp32")(array)
    enlarged = np.array(Image.fromarray(array).resize((64, 32), Image.Resampling.BILINEAR))
    expected = torch.tensor(by_hand(model, enlarged))[None]
    full = interpolate(expected, (10, 20), mode="bilinear", antialias=True)[0].numpy()
    assert_alike(result.confidence, full.max(0))
    assert (result.class_map == full.argmax(0)).mean() > 0.99


def test_the_working_size_can_be_overridden_for_one_call():
    segmenter = Segmenter(network(working_size=32), "cpu", "fp32")
    assert segmenter.probabilities(picture(40, 80), working_size=48).shape == (3, 24, 48)
    assert segmenter.probabilities(picture(40, 80)).shape == (3, 16, 32)
    with pytest.raises(ValueError, match="working_size must be at least 1"):
        segmenter(picture(8, 8), working_size=-5)


def test_without_a_working_size_the_picture_keeps_its_own():
    assert Segmenter(network(), "cpu").probabilities(picture(21, 34)).shape == (3, 21, 34)


def test_without_a_working_size_small_pictures_are_enlarged_to_the_minimum_size():
    model, array = network(minimum_size=64), picture(10, 20)
    segmenter = Segmenter(model, "cpu", "fp32")
    enlarged = np.array(Image.fromarray(array).resize((64, 32), Image.Resampling.BILINEAR))
    assert_alike(segmenter.probabilities(array), by_hand(model, enlarged))
    assert segmenter(array).class_map.shape == (10, 20)
    assert segmenter.probabilities(picture(40, 80)).shape == (3, 40, 80)
    assert segmenter.probabilities(array, working_size=32).shape == (3, 16, 32)
    assert network(working_size=32, minimum_size=64).longer_side_for((20, 10)) == 32


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("kind", [FCN, UNet, SegNet])
def test_tiny_and_thin_pictures_are_answered(kind, size):
    result = Segmenter(network(kind, working_size=48), "cpu")(picture(*size))
    assert result.class_map.shape == size
    assert np.isfinite(result.confidence).all()


# ---- tiles ----


@pytest.mark.parametrize("kind", [FCN, UNet, SegNet])
def test_tiles_give_the_answer_of_one_pass(kind, monkeypatch):
    model, array = network(kind), picture(705, 40)
    segmenter = Segmenter(model, "cpu", "fp32")
    whole = segmenter.probabilities(array)
    # Context of 288 rows on either side, and cores of 64 rows: 12 tiles, the last of one row.
    cores = [(slice(top, min(top + 64, 705)), slice(0, 40)) for top in range(0, 705, 64)]
    monkeypatch.setattr(module, "tiles", lambda *_: cores)
    assert_alike(segmenter.probabilities(array), whole)


@pytest.mark.parametrize("working_size", [None, 300, 900])
def test_tiles_and_one_pass_give_one_class_map_at_every_size(working_size, monkeypatch):
    """At the working size, above and below it."""
    segmenter, array = Segmenter(network(UNet), "cpu", "fp32"), picture(600, 30)
    whole = segmenter(array, working_size=working_size)

    def cores(height, width, *_):
        return [(slice(y, min(y + 64, height)), slice(0, width)) for y in range(0, height, 64)]

    monkeypatch.setattr(module, "tiles", cores)
    tiled = segmenter(array, working_size=working_size)
    assert_alike(tiled.confidence, whole.confidence)
    assert (tiled.class_map == whole.class_map).mean() > 0.999


def test_tile_size_must_leave_room_for_a_core():
    with pytest.raises(ValueError, match="tile_size must be more than 576"):
        Segmenter(network(), "cpu", tile_size=576)


def test_the_unpadded_unet_sees_the_mirrored_picture():
    """Overlap-tile: the answer on a picture is the network's on the picture padded by reflection,
    here NumPy's."""
    model, array = network(UNet, padding="valid"), picture(50, 30)
    # 572 -> 388 takes 92 pixels on each side; inputs are 16 n + 12: 50 + 184 -> 236, 30 + 184 ->
    # 220, the surplus at the bottom and the right.
    padded = np.pad(array, ((92, 236 - 142), (92, 220 - 122), (0, 0)), mode="reflect")
    expected = by_hand(model, padded)[:, :50, :30]
    probabilities = Segmenter(model, "cpu", "fp32").probabilities(array)
    assert probabilities.shape == (3, 50, 30)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


# ---- what is taken ----


def test_paths_pil_images_and_arrays_give_one_answer(tmp_path):
    array = picture(30, 40)
    image = Image.fromarray(array)
    image.save(tmp_path / "picture.png")
    segmenter = Segmenter(network(), "cpu")
    answers = [
        segmenter(given).class_map
        for given in (tmp_path / "picture.png", str(tmp_path / "picture.png"), image, array)
    ]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_the_class_map_lies_over_the_turned_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees: 40 x 30 becomes 30 x 40
    Image.fromarray(picture(30, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert Segmenter(network(), "cpu")(tmp_path / "turned.jpg").class_map.shape == (40, 30)


def test_a_network_for_one_channel_takes_the_luminance():
    model, array = network(in_channels=1), picture(20, 24)
    grey = np.array(Image.fromarray(array).convert("L"))[..., None]
    expected = by_hand(model, grey)
    probabilities = Segmenter(model, "cpu", "fp32").probabilities(array)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_what_is_no_picture_is_a_picture_error(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    segmenter = Segmenter(network(), "cpu")
    with pytest.raises(PictureError, match=r"notes\.png"):
        segmenter(tmp_path / "notes.png")
    with pytest.raises(PictureError, match="float64"):
        segmenter(np.zeros((4, 4, 3)))


def test_the_largest_picture_that_is_taken_can_be_set():
    segmenter = Segmenter(network(), "cpu", max_pixels=100)
    assert segmenter(picture(10, 10)).class_map.shape == (10, 10)
    for call in (segmenter, segmenter.probabilities):
        with pytest.raises(PictureError, match=r"10 x 11 .* megapixels"):
            call(picture(11, 10))


def test_threads_share_a_segmenter_and_get_to_the_bit_what_one_would():
    segmenter = Segmenter(network(dropout=0.5), "cpu", "fp32")
    jobs = [(picture(24 + seed, 32, seed), seed % 3) for seed in range(12)]  # 0, 1 or 2 samples
    expected = [segmenter(array, samples=samples) for array, samples in jobs]

    def work(job):
        torch.rand(5)  # others draw random numbers meanwhile
        array, samples = job
        return segmenter(array, samples=samples)

    with ThreadPoolExecutor(6) as pool:
        for alone, beside in zip(expected * 3, pool.map(work, jobs * 3), strict=True):
            assert np.array_equal(alone.class_map, beside.class_map)
            assert np.array_equal(alone.confidence, beside.confidence)
            assert np.array_equal(alone.uncertainty, beside.uncertainty)


# ---- Monte Carlo samples ----


def test_samples_give_the_mean_and_the_variance_of_the_samples():
    model, array = network(dropout=0.5), picture(16, 24)
    segmenter = Segmenter(model, "cpu", "fp32")
    result = segmenter(array, samples=5)
    pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
    part = slice(0, 16), slice(0, 24)
    with seeded_dropout(segmenter.device):
        samples = np.stack(
            [
                segmenter._probabilities(segmenter._sampling_network, pixels, *part)[0].numpy()
                for _ in range(5)
            ]
        )
    assert not np.array_equal(samples[0], samples[1])
    np.testing.assert_allclose(result.confidence, samples.mean(0).max(0), atol=1e-6)
    np.testing.assert_allclose(result.uncertainty, samples.var(0).mean(0), atol=1e-6)
    assert result.uncertainty.shape == (16, 24)
    assert result.uncertainty.dtype == np.float32


def test_without_samples_dropout_is_off_and_there_is_no_uncertainty():
    segmenter, array = Segmenter(network(dropout=0.5), "cpu"), picture(16, 24)
    assert np.array_equal(segmenter(array).confidence, segmenter(array).confidence)
    assert segmenter(array).uncertainty is None


def test_samples_need_dropout():
    with pytest.raises(ValueError, match="samples require a network with dropout"):
        Segmenter(network(), "cpu")(picture(8, 8), samples=3)
    with pytest.raises(ValueError, match="samples must be 0"):
        Segmenter(network(dropout=0.5), "cpu")(picture(8, 8), samples=-1)


def test_the_stages_of_an_fcn_lie_over_the_picture():
    model = network(FCN, stride=8, at_once=False)
    segmenter = Segmenter(model, "cpu", "fp32")
    array = picture(50, 70)
    stages = {stride: segmenter.at_stride(array, stride) for stride in (32, 16, 8)}
    assert np.array_equal(stages[8].class_map, segmenter(array).class_map)
    coarse = model.at_stride(module.normalise(to_tensor(array), model), 32).softmax(1).max(1)
    assert np.array_equal(stages[32].class_map, coarse.indices[0].numpy())
    assert np.abs(stages[32].confidence - coarse.values[0].detach().numpy()).max() < 1e-5
    assert np.abs(stages[32].confidence - stages[8].confidence).max() > 0.01


def test_stages_are_asked_of_an_fcn_only():
    with pytest.raises(ValueError, match="U-Net has no prediction strides"):
        Segmenter(network(UNet), "cpu").at_stride(picture(8, 8), 32)


# torch 2.13 uses what it deprecates when its compiler is imported.
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, nn.Sequential])
def test_a_wrapped_network_is_segmented_with_as_it_is(wrap):
    model, array = network(UNet), picture(20, 24)
    expected = Segmenter(model, "cpu", "fp32")(array).class_map
    segmenter = Segmenter(wrap(model), "cpu", "fp32")
    assert segmenter.model is model
    assert np.array_equal(segmenter(array).class_map, expected)


@pytest.mark.parametrize("other", [nn.Conv2d(3, 2, 1), "org/unet", nn.ModuleList([])])
def test_what_holds_no_network_is_refused_with_what_to_pass(other):
    with pytest.raises(TypeError, match=rf"got a {type(other).__name__} .* load_model"):
        Segmenter(other, "cpu")


def test_the_answers_picture_is_its_own():
    image = Image.new("RGB", (40, 30), (10, 20, 30))
    result = Segmenter(network(FCN))(image)
    image.paste((255, 255, 255), (0, 0, 40, 30))
    assert (result.array == (10, 20, 30)).all()
    assert not result.array.flags.writeable
