"""Out of memory: small tiles, the CPU, and a note about it."""

import numpy as np
import pytest
import torch
from torch import nn

from segmodels import PictureError, Segmenter, UNet
from segmodels.inference._oom import first_that_fits, is_out_of_memory, on_cpu

NAMES = ["road", "sky", "car"]


class LittleMemory(nn.Module):
    """A network on a device whose memory is enough for so many pixels; `allowed` None: whatever."""

    def __init__(self, network, allowed, error=None):
        super().__init__()
        self.network, self.allowed, self.seen = network, allowed, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def forward(self, pixels):
        self.seen.append(pixels.shape[-2] * pixels.shape[-1])
        if self.seen[-1] > self.allowed:
            raise self.error
        return self.network(pixels)


def segmenter_with(allowed, *, pretend="cuda", error=None):
    """A segmenter that takes the CPU for a GPU of little memory."""
    torch.manual_seed(0)
    model = UNet(class_names=NAMES, base_channels=1, dropout=0.5)
    segmenter = Segmenter(model, "cpu", "fp32")
    limited = LittleMemory(segmenter.network, allowed, error)
    segmenter.network = limited
    # Tensors stay where they are: what the segmenter believes of its device is another matter.
    segmenter.device = Pretended(pretend)
    return segmenter, limited


class Pretended:
    """A device by its name only, that is the CPU to PyTorch."""

    def __init__(self, type):
        self.type = type


@pytest.fixture(autouse=True)
def devices(monkeypatch):
    """`Pretended` devices are taken for the CPU where tensors are made."""
    to = torch.Tensor.to

    def plain(self, *arguments, **options):
        arguments = ["cpu" if isinstance(a, Pretended) else a for a in arguments]
        return to(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", plain)


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_with_enough_memory_there_is_no_note():
    segmenter, limited = segmenter_with(allowed=10**9)
    assert segmenter(PICTURE).note is None
    assert limited.seen == [40 * 60]


def test_an_image_too_large_for_the_memory_is_segmented_in_small_tiles():
    large = np.random.default_rng(1).integers(0, 256, (840, 900, 3), np.uint8)
    expected = segmenter_with(allowed=10**9)[0](large)
    segmenter, limited = segmenter_with(allowed=832 * 832)
    result = segmenter(large)
    assert result.note == "Segmented in small tiles because GPU memory ran out."
    # Cores of 832 - 2 * 288 = 256 pixels: 4 rows of 4 tiles, none of more than 832 x 832.
    assert limited.seen[0] == 840 * 900
    assert len(limited.seen) == 1 + 4 * 4
    assert max(limited.seen[1:]) <= 832 * 832
    assert (result.class_map == expected.class_map).mean() > 0.999
    assert segmenter.tile_size == 1600  # for the next image


def test_the_cpu_takes_over_where_tiles_do_not_fit_either():
    segmenter, limited = segmenter_with(allowed=0)
    network = limited.network
    expected = Segmenter(segmenter.model, "cpu", "fp32")(PICTURE)
    with pytest.MonkeyPatch.context() as patch:  # the copy on the CPU has memory enough
        patch.setattr("segmodels.inference.segmenter.on_cpu", lambda _: on_cpu(network))
        result = segmenter(PICTURE)
        probabilities = segmenter.probabilities(PICTURE)
    assert result.note == "Segmented on the CPU because GPU memory ran out."
    assert np.array_equal(result.class_map, expected.class_map)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (segmenter.device.type, segmenter.network) == ("cuda", limited)


def test_samples_fall_back_likewise():
    segmenter, limited = segmenter_with(allowed=0)
    segmenter._sampling_network, network = limited, limited.network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmodels.inference.segmenter.on_cpu", lambda _: on_cpu(network))
        patch.setattr(
            "segmodels.inference.segmenter.seeded_dropout", lambda _: torch.inference_mode()
        )
        result = segmenter(PICTURE, samples=3)
    assert result.note.startswith("Segmented on the CPU")
    assert result.uncertainty.max() > 0


def test_an_image_that_fits_nowhere_is_refused():
    segmenter, limited = segmenter_with(allowed=0, pretend="cpu")
    with pytest.raises(PictureError, match=r"not enough memory .*Tried to allocate.*scale it down"):
        segmenter(PICTURE)
    assert len(limited.seen) == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    segmenter, limited = segmenter_with(allowed=0, error=error)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        segmenter(PICTURE)
    assert len(limited.seen) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (torch.cuda.OutOfMemoryError("HIP out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_real_allocators_error_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)


def test_a_configuration_is_made_only_when_its_turn_comes():
    made = []
    attempts = [(None, lambda: made.append(1) or 1), ("second", lambda: made.append(2) or 2)]
    assert first_that_fits(attempts, lambda made: made * 10) == (10, None)
    assert made == [1]


def test_the_copy_on_the_cpu_is_in_full_precision_and_shares_nothing():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().to(torch.bfloat16)
    copied = on_cpu(network)
    assert copied[0].weight.dtype == copied[1].running_mean.dtype == torch.float32
    assert copied[1].num_batches_tracked.dtype == torch.int64
    assert copied[0].weight.data_ptr() != network[0].weight.data_ptr()
    assert network[0].weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert copied(torch.rand(1, 3, 8, 8)).dtype == torch.float32
