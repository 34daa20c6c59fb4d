from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import label

from segmodels.evaluation.em_metrics import (
    THRESHOLDS,
    MembraneMetrics,
    best_of_thresholds,
    cell_overlap,
    connected_cells,
    mean_membrane_metrics,
    membrane_metrics,
    metrics_by_threshold,
    thinned_cells,
    v_info,
    v_rand,
    warp,
)

MEMBRANE, CELL = 0, 1


def section(seed, size=(5, 6), cell=6):
    """Cells of a grid, some of them merged, with membranes one pixel wide."""
    random = np.random.default_rng(seed)
    image = np.full((size[0] * cell, size[1] * cell), CELL, np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            top, left = row * cell, column * cell
            if random.random() < 0.8:
                image[top, left : left + cell] = MEMBRANE
            if random.random() < 0.8:
                image[top : top + cell, left] = MEMBRANE
    return image


def naive_pairs(target, prediction):
    """Ordered pairs of pixels, a pixel with itself too: together in both, in the prediction, in the
    target."""
    both = of_prediction = of_target = len(target)
    for i, j in combinations(range(len(target)), 2):
        same_target, same_prediction = target[i] == target[j], prediction[i] == prediction[j]
        both += 2 * (same_target and same_prediction)
        of_prediction += 2 * same_prediction
        of_target += 2 * same_target
    return both, of_prediction, of_target


@pytest.mark.parametrize("seed", range(3))
def test_v_rand_is_that_of_all_pairs_of_pixels(seed):
    random = np.random.default_rng(seed)
    target, prediction = random.integers(0, 5, 60), random.integers(0, 4, 60)
    both, of_prediction, of_target = naive_pairs(target, prediction)
    score = v_rand(cell_overlap(target, prediction))
    assert score == pytest.approx(2 * both / (of_prediction + of_target))
    # scikit-learn counts the pairs of different pixels.
    from sklearn.metrics import pair_confusion_matrix  # takes a second

    ((_, only_prediction), (only_target, together)) = pair_confusion_matrix(target, prediction)
    assert both == together + 60
    assert of_target == together + only_target + 60
    assert of_prediction == together + only_prediction + 60


def test_v_info_is_scikit_learns_normalised_mutual_information():
    from sklearn.metrics import normalized_mutual_info_score

    random = np.random.default_rng(0)
    target = random.integers(0, 5, 400)
    prediction = np.where(random.random(400) < 0.7, target, random.integers(0, 6, 400))
    score = v_info(cell_overlap(target, prediction))
    assert score == pytest.approx(
        normalized_mutual_info_score(target, prediction, average_method="arithmetic")
    )
    assert 0 < score < 1


def test_a_hole_in_a_membrane_by_hand():
    # Two cells of 3 x 4 pixels beside a membrane of one column; the prediction's membrane has a
    # hole, so that there is one cell, and one pixel of 27 is wrong.
    target = np.full((3, 9), CELL, np.uint8)
    target[:, 4] = MEMBRANE
    prediction = target.copy()
    prediction[1, 4] = CELL
    result = membrane_metrics(target, prediction, MEMBRANE)
    # p: one predicted cell with 12 of 24 pixels in each true cell: 2 * (1/4 + 1/4) / (1 + 1/2).
    assert result.v_rand == pytest.approx(2 / 3)
    assert result.v_info == 0  # the prediction says nothing of the cells
    assert result.pixel_error == pytest.approx(1 / 27)
    assert result.warping_error == pytest.approx(1 / 27)  # no deformation merges two cells
    assert result.to_json()["rand_error"] == pytest.approx(1 / 3)


def test_a_thicker_or_shifted_membrane_changes_the_pixel_error_only():
    target = np.full((6, 21), CELL, np.uint8)
    target[:, 10] = MEMBRANE
    thick = target.copy()
    thick[:, 8:13] = MEMBRANE
    result = membrane_metrics(target, thick, MEMBRANE)
    assert (result.v_rand, result.v_info) == (1, pytest.approx(1))
    assert result.pixel_error == pytest.approx(4 / 21)
    assert result.warping_error == 0
    shifted = np.roll(target, 1, axis=1)
    assert membrane_metrics(target, shifted, MEMBRANE).warping_error == 0


@pytest.mark.parametrize("seed", range(3))
def test_whole_sections_against_naive_pairs(seed):
    target, prediction = section(seed), section(seed + 10)
    target[0, :5] = 255
    result = membrane_metrics(target, prediction, MEMBRANE)
    counted = (target == CELL).ravel()
    cells = connected_cells(target, MEMBRANE).ravel()[counted]
    found = thinned_cells(prediction, MEMBRANE).ravel()[counted]
    both, of_prediction, of_target = naive_pairs(cells[::7], found[::7])
    assert v_rand(cell_overlap(cells[::7], found[::7])) == pytest.approx(
        2 * both / (of_prediction + of_target)
    )
    known = target != 255
    wrong = (target == MEMBRANE) != (prediction == MEMBRANE)
    assert result.pixel_error == wrong[known].sum() / known.sum()
    assert 0 < result.v_rand < 1


def test_thinning_gives_each_pixel_to_the_nearest_cell():
    class_map = np.array([[1, 1, 0, 0, 0, 1]], np.uint8)
    assert thinned_cells(class_map, MEMBRANE).tolist() == [[1, 1, 1, 1, 2, 2]]
    assert thinned_cells(np.zeros((2, 2), np.uint8), MEMBRANE).tolist() == [[0, 0], [0, 0]]


def test_perfect_and_empty_sections():
    target = section(0)
    assert membrane_metrics(target, target, MEMBRANE) == MembraneMetrics(
        pytest.approx(1), pytest.approx(1), 0, 0
    )
    void = np.full((4, 4), 255, np.uint8)
    assert all(
        value is None for value in membrane_metrics(void, target[:4, :4], 0).to_json().values()
    )
    one_cell = np.full((4, 4), CELL, np.uint8)
    assert membrane_metrics(one_cell, one_cell, MEMBRANE) == MembraneMetrics(1, 1, 0, 0)


def test_means_over_sections():
    sections = [MembraneMetrics(0.5, 0.25, 0.5, 0.1), MembraneMetrics(1, 0.75, 0, 0.3)]
    assert mean_membrane_metrics(sections) == MembraneMetrics(0.75, 0.5, 0.25, 0.2)


def test_each_threshold_is_that_of_its_class_map():
    target = section(0)
    probability = np.random.default_rng(0).random(target.shape).astype(np.float32)
    for threshold, found in zip(
        THRESHOLDS, metrics_by_threshold(target, probability, MEMBRANE), strict=True
    ):
        class_map = np.where(probability >= threshold, MEMBRANE, CELL).astype(np.uint8)
        assert found == membrane_metrics(target, class_map, MEMBRANE)


def test_the_best_threshold_of_a_faint_membrane_by_hand():
    # A membrane of probability 0.35 is complete up to a threshold of 0.3; a false one of 0.25
    # splits the cell on its right up to 0.2.
    target = np.full((6, 21), CELL, np.uint8)
    target[:, 10] = MEMBRANE
    probability = np.zeros(target.shape, np.float32)
    probability[:, 10], probability[:, 15] = 0.35, 0.25
    best = best_of_thresholds([metrics_by_threshold(target, probability, MEMBRANE)])
    assert best == {
        name: {"value": pytest.approx(value), "threshold": 0.3}
        for name, value in {
            "v_rand": 1,
            "rand_error": 0,
            "v_info": 1,
            "pixel_error": 0,
            "warping_error": 0,
        }.items()
    }


def test_the_best_threshold_is_that_of_the_mean_over_the_sections():
    good, bad = MembraneMetrics(0.9, 0.9, 0.1, 0.1), MembraneMetrics(0.1, 0.1, 0.9, 0.9)
    fair = MembraneMetrics(0.6, 0.6, 0.4, 0.4)
    rest = [bad] * (len(THRESHOLDS) - 3)
    best = best_of_thresholds([[good, bad, fair, *rest], [bad, good, fair, *rest]])
    assert best["v_rand"] == {"value": pytest.approx(0.6), "threshold": 0.3}
    assert best["pixel_error"] == {"value": pytest.approx(0.4), "threshold": 0.3}
    undefined = MembraneMetrics(*[float("nan")] * 4)
    assert best_of_thresholds([[undefined] * len(THRESHOLDS)])["v_info"] == {
        "value": None,
        "threshold": None,
    }


def components(cells):
    """Numbers of cells, connected by sides, and of membranes, connected by corners too."""
    return label(cells)[1], label(~cells, np.ones((3, 3)))[1]


@pytest.mark.parametrize("seed", range(3))
def test_warping_keeps_the_topology_and_leaves_nothing_that_could_be_flipped(seed):
    target, prediction = section(seed) == CELL, section(seed + 10) == CELL
    warped = warp(target, prediction, np.ones_like(target))
    assert components(warped) == components(target)
    before, left = (target != prediction).sum(), np.argwhere(warped != prediction)
    assert 0 < len(left) < before
    for y, x in left:
        # A flip that kept the numbers in the pixel's neighbourhood would have been made.
        patch = np.pad(warped, 1, "edge")[y : y + 3, x : x + 3].copy()
        if 0 < y < target.shape[0] - 1 and 0 < x < target.shape[1] - 1:
            was = components(patch)
            patch[1, 1] = ~patch[1, 1]
            assert components(patch) != was


def test_splits_and_holes_stay_errors_by_hand():
    # One cell of 5 x 9; a membrane across it at column 4 splits it: all but a gap of one pixel can
    # be grown from the edge, so that one pixel stays wrong. An island of membrane stays whole.
    target = np.full((5, 9), CELL, np.uint8)
    target[0] = MEMBRANE
    split = target.copy()
    split[:, 4] = MEMBRANE
    assert membrane_metrics(target, split, MEMBRANE).warping_error == pytest.approx(1 / 45)
    island = target.copy()
    island[2:4, 6:8] = MEMBRANE
    assert membrane_metrics(target, island, MEMBRANE).warping_error == pytest.approx(4 / 45)


def test_void_is_never_warped():
    target = np.full((4, 6), CELL, np.uint8)
    target[:, 0], target[:, 3:] = MEMBRANE, 255
    prediction = np.full_like(target, MEMBRANE)
    known = target != 255
    warped = warp(target == CELL, prediction == CELL, known)
    np.testing.assert_array_equal(warped[~known], (target == CELL)[~known])
    assert warped[known].sum() == 1  # a cell does not vanish
