import numpy as np
import pytest

from segmodels.evaluation.object_metrics import ObjectCounts, object_counts


def flood(mask):
    """Connected components by sides, as sets of pixels."""
    left, found = {tuple(point) for point in np.argwhere(mask)}, []
    while left:
        open_, component = [left.pop()], set()
        while open_:
            y, x = open_.pop()
            component.add((y, x))
            for beside in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if beside in left:
                    left.remove(beside)
                    open_.append(beside)
        found.append(component)
    return found


def naive_counts(target, prediction, class_id):
    known = target != 255
    true = flood((target == class_id) & known)
    found = flood((prediction == class_id) & known)
    matches = sum(len(a & b) / len(a | b) > 0.5 for a in true for b in found)
    return ObjectCounts(matches, len(true) - matches, len(found) - matches)


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_the_naive_ones(seed):
    random = np.random.default_rng(seed)
    target = (random.random((9, 11)) < 0.4).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    prediction = np.roll(target, (1, 0), (0, 1))
    flips = random.random(target.shape) < 0.02
    prediction[flips] = 1 - prediction[flips]
    prediction[:8, :20] = 0
    target[random.random(target.shape) < 0.05] = 255
    counts = object_counts(target, prediction, 1)
    assert counts == naive_counts(target, prediction, 1)
    assert min(counts.found, counts.missed, counts.extra) > 0


def test_objects_by_hand():
    # Four objects in the target: one found as it is, one found at an IoU of 3 / 4, one covered by
    # half only (IoU 0.5, not above it), one missed; one more is predicted in void and ignored, and
    # one elsewhere.
    target = np.zeros((12, 12), np.uint8)
    target[1:3, 1:3] = target[1:3, 5:7] = target[5:7, 1:3] = target[5:7, 5:7] = 1
    target[9:11, 9:11] = 255
    prediction = np.zeros_like(target)
    prediction[1:3, 1:3] = prediction[1, 5:7] = prediction[2, 5] = prediction[5, 1:3] = 1
    prediction[9:11, 9:11] = prediction[9:11, 1:3] = 1
    counts = object_counts(target, prediction, 1)
    assert counts == ObjectCounts(found=2, missed=2, extra=2)
    assert counts.precision == counts.recall == 2 / 4
    assert counts.average_precision == 2 / 6
    assert counts.to_json()["ap50"] == 2 / 6


def test_corners_do_not_connect_objects():
    target = np.zeros((4, 4), np.uint8)
    target[:2, :2] = target[2:, 2:] = 1
    assert object_counts(target, target, 1) == ObjectCounts(found=2)


def test_sums_and_empty_images():
    nothing = object_counts(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), 1)
    assert nothing == ObjectCounts()
    assert nothing.to_json()["precision"] is None
    assert sum([ObjectCounts(1, 2, 3), ObjectCounts(4, 5, 6)], nothing) == ObjectCounts(5, 7, 9)
