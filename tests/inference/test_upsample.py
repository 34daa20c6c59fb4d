"""The class map at the picture's size, against interpolating every class at every pixel."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from segmodels.inference import _upsample
from segmodels.inference._upsample import FullSize

SIZES = [
    ((5, 7), (5, 7)),
    ((5, 7), (11, 20)),
    ((1, 9), (1, 100)),
    ((9, 1), (50, 1)),
    ((1, 1), (3, 4)),
    ((30, 40), (37, 41)),
    ((12, 16), (120, 160)),
]


def probabilities(size, seed=0):
    """(4, *size) float32 that sum to 1: patches of one class, and everywhere some noise."""
    torch.manual_seed(seed)
    coarse = torch.randn(1, 4, size[0] // 3 + 1, size[1] // 3 + 1)
    logits = 3 * interpolate(coarse, size, mode="nearest") + torch.randn(1, 4, *size)
    return logits[0].softmax(0)


def by_hand(values, full):
    """Every class at every pixel: torch's own bilinear interpolation, then the largest."""
    best = interpolate(values[None], full, mode="bilinear")[0].max(0)
    return best.indices.numpy(), best.values.numpy()


def filled(values, full, parts):
    answer = FullSize(tuple(values.shape[1:]), full)
    height, width = values.shape[1:]
    for rows, columns in parts:
        below, behind = min(rows.stop + 1, height), min(columns.stop + 1, width)
        answer.fill(values[:, rows.start : below, columns.start : behind], rows, columns)
    return answer.class_map(), answer.confidence()


@pytest.mark.parametrize(("working", "full"), SIZES)
def test_it_is_the_argmax_of_the_interpolated_probabilities(working, full):
    values = probabilities(working)
    class_map, confidence = filled(values, full, [(slice(0, working[0]), slice(0, working[1]))])
    expected, highest = by_hand(values, full)
    assert class_map.shape == confidence.shape == full
    assert (class_map.dtype, confidence.dtype) == (np.uint8, np.float32)
    np.testing.assert_allclose(confidence, highest, atol=1e-5)
    assert (class_map == expected).mean() > 0.999  # rounding may decide between equal ones


def test_a_class_that_wins_at_no_corner_may_win_between_them():
    # Left 0.5 0 0.45, right 0 0.5 0.45: in the middle 0.25, 0.25 and 0.45.
    values = torch.tensor([[[0.5, 0.0]], [[0.0, 0.5]], [[0.45, 0.45]]])
    class_map, confidence = filled(values, (1, 6), [(slice(0, 1), slice(0, 2))])
    # Centres lie at (x + 0.5) / 3 - 0.5 = -0.33 -> 0, 0, 0.33, 0.67, 1, 1: at 0.33 class 0 has
    # 0.33, class 2 0.45.
    assert class_map.tolist() == [[0, 0, 2, 2, 1, 1]]
    np.testing.assert_allclose(confidence, [[0.5, 0.5, 0.45, 0.45, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("full", [(12, 16), (31, 47)])
def test_parts_give_what_the_whole_gives(full):
    values = probabilities((12, 16))
    whole = filled(values, full, [(slice(0, 12), slice(0, 16))])
    rows, columns = [slice(0, 5), slice(5, 12)], [slice(0, 8), slice(8, 9), slice(9, 16)]
    parts = filled(values, full, [(r, c) for r in rows for c in columns])
    assert np.array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)


def test_chunks_of_pixels_change_nothing(monkeypatch):
    values = probabilities((12, 16))
    whole = filled(values, (60, 80), [(slice(0, 12), slice(0, 16))])
    monkeypatch.setattr(_upsample, "CHUNK", 7)
    chunks = filled(values, (60, 80), [(slice(0, 12), slice(0, 16))])
    assert all(np.array_equal(a, b) for a, b in zip(whole, chunks, strict=True))


def test_a_smaller_picture_is_refused():
    with pytest.raises(ValueError, match=r"working size must be at most \(8, 7\), got \(8, 8\)"):
        FullSize((8, 8), (8, 7))
