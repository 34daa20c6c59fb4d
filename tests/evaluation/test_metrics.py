import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from segmodels.evaluation import metrics

CLASSES = 4


@pytest.fixture
def maps():
    """Target and prediction, right in two pixels of three, with void and without class 3."""
    random = np.random.default_rng(0)
    target = random.integers(0, 3, (20, 30), dtype=np.uint8)
    guess = random.integers(0, 3, target.shape, dtype=np.uint8)
    prediction = np.where(random.random(target.shape) < 2 / 3, target, guess)
    target[random.random(target.shape) < 0.1] = 255
    return target, prediction


def known(maps):
    target, prediction = maps
    return target[target != 255], prediction[target != 255]


def test_confusion_matrix_is_scikit_learns_without_the_void_pixels(maps):
    expected = sklearn_metrics.confusion_matrix(*known(maps), labels=range(CLASSES))
    np.testing.assert_array_equal(metrics.confusion_matrix(*maps, CLASSES), expected)


def test_metrics_are_scikit_learns(maps):
    matrix = metrics.confusion_matrix(*maps, CLASSES)
    target, prediction = known(maps)
    present = [0, 1, 2]
    iou = sklearn_metrics.jaccard_score(target, prediction, labels=present, average=None)
    recall = sklearn_metrics.recall_score(target, prediction, labels=present, average=None)
    weighted = sklearn_metrics.jaccard_score(target, prediction, average="weighted")
    np.testing.assert_allclose(metrics.per_class_iou(matrix), [*iou, np.nan])
    np.testing.assert_allclose(metrics.per_class_accuracy(matrix), [*recall, np.nan])
    assert metrics.mean_iou(matrix) == pytest.approx(iou.mean())
    assert metrics.frequency_weighted_iou(matrix) == pytest.approx(weighted)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(
        sklearn_metrics.accuracy_score(target, prediction)
    )
    assert metrics.mean_accuracy(matrix) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(target, prediction)
    )


def test_dice_precision_and_recall_are_scikit_learns_and_torchmetrics(maps):
    matrix = metrics.confusion_matrix(*maps, CLASSES)
    target, prediction = known(maps)
    present = [0, 1, 2]
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        target, prediction, labels=present, average=None
    )
    np.testing.assert_allclose(metrics.per_class_dice(matrix), [*f1, np.nan])
    np.testing.assert_allclose(metrics.per_class_precision(matrix), [*precision, np.nan])
    np.testing.assert_allclose(metrics.per_class_accuracy(matrix), [*recall, np.nan])
    classification = pytest.importorskip("torchmetrics.functional.classification")
    tensors = [torch.from_numpy(ids.astype(np.int64)) for ids in (maps[1], maps[0])]
    options = {"num_classes": CLASSES, "average": "none", "ignore_index": 255}
    for theirs, ours in (
        ("multiclass_jaccard_index", metrics.per_class_iou),
        ("multiclass_f1_score", metrics.per_class_dice),
        ("multiclass_precision", metrics.per_class_precision),
        ("multiclass_recall", metrics.per_class_accuracy),
    ):
        expected = getattr(classification, theirs)(*tensors, **options)[:3].numpy()
        np.testing.assert_allclose(ours(matrix)[:3], expected, rtol=1e-6)


def test_a_class_that_is_only_predicted_or_only_in_the_target():
    # Class 0: 3 of 4 found; class 1 predicted once and never true; class 2 true and never found.
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 0]])
    np.testing.assert_allclose(metrics.per_class_precision(matrix), [3 / 5, 0, np.nan])
    np.testing.assert_allclose(metrics.per_class_accuracy(matrix), [3 / 4, np.nan, 0])
    np.testing.assert_allclose(metrics.per_class_dice(matrix), [6 / 9, 0, 0])
    assert metrics.present_classes(matrix).tolist() == [True, False, True]


def test_metrics_of_an_example_by_hand():
    target = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 2, 0, 2]], np.uint8)
    matrix = metrics.confusion_matrix(target, prediction, CLASSES)
    # Rows are the target: of three pixels of class 0 two are found and one taken for class 1; of
    # three of class 1 two are found and one taken for class 2; nobody has class 3.
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # IoU: 2 / 3, 2 / (2 + 1 + 1), 0 / 1, 0 / 0. Their mean: (2/3 + 1/2 + 0) / 3 = 7 / 18.
    np.testing.assert_allclose(metrics.per_class_iou(matrix), [2 / 3, 1 / 2, 0, np.nan])
    assert metrics.mean_iou(matrix) == pytest.approx(7 / 18)
    # Accuracy: 2 / 3, 2 / 3, and classes 2 and 3 have no pixel to find.
    np.testing.assert_allclose(metrics.per_class_accuracy(matrix), [2 / 3, 2 / 3, np.nan, np.nan])
    assert metrics.mean_accuracy(matrix) == pytest.approx(2 / 3)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(4 / 6)
    # Weighted by 3 and 3 pixels of 6: (2/3 + 1/2) / 2 = 7 / 12.
    assert metrics.frequency_weighted_iou(matrix) == pytest.approx(7 / 12)


def test_all_is_nan_where_all_is_void():
    void = np.full((3, 3), 255, np.uint8)
    matrix = metrics.confusion_matrix(void, np.zeros_like(void), CLASSES)
    assert matrix.sum() == 0
    means = [metrics.mean_iou, metrics.mean_accuracy, metrics.pixel_accuracy]
    assert all(np.isnan(mean(matrix)) for mean in [*means, metrics.frequency_weighted_iou])
    assert np.isnan(metrics.boundary_f1(void, np.zeros_like(void), CLASSES)).all()


@pytest.mark.parametrize("wrong", ["target", "prediction"])
def test_an_id_beyond_the_classes_is_refused(wrong):
    maps = {"target": np.zeros((2, 2), np.uint8), "prediction": np.zeros((2, 2), np.uint8)}
    maps[wrong][1, 1] = 4
    with pytest.raises(ValueError, match=f"{wrong} has the id 4; expected 0 to 3"):
        metrics.confusion_matrix(*maps.values(), CLASSES)


@pytest.mark.parametrize("function", [metrics.confusion_matrix, metrics.boundary_f1])
def test_maps_of_different_sizes_are_refused(function):
    with pytest.raises(ValueError, match=r"\(2, 2\) and prediction \(2, 3\) differ"):
        function(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), CLASSES)


def naive_boundary(region, known):
    """Pixels of the region with one of four neighbours that is known and not of the region."""
    height, width = region.shape
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if region[y, x]
        and any(
            0 <= b < height and 0 <= a < width and known[b, a] and not region[b, a]
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        )
    ]


def naive_boundary_f1(target, prediction, tolerance):
    """By the definition, over all pairs of boundary pixels."""
    radius = tolerance * np.hypot(*target.shape)
    everywhere = np.ones(target.shape, bool)
    void = np.argwhere(target == 255).tolist()

    def near(point, those):
        return any(np.hypot(point[0] - y, point[1] - x) <= radius for y, x in those)

    scores = []
    for class_id in range(CLASSES):
        true = naive_boundary(target == class_id, target != 255)
        found = naive_boundary(prediction == class_id, everywhere)
        judged = [point for point in found if not near(point, void)]
        if not true and not judged:
            scores.append(np.nan)
            continue
        precision = np.mean([near(point, true) for point in judged or found]) if found else 0
        recall = np.mean([near(point, found) for point in true]) if true else 0
        both = precision + recall
        scores.append(2 * precision * recall / both if both else 0.0)
    return scores


@pytest.mark.parametrize("tolerance", [0.0075, 0.06, 0.2])
def test_boundary_f1_is_the_naive_one(tolerance):
    random = np.random.default_rng(1)
    coarse = random.integers(0, 3, (4, 5), dtype=np.uint8)
    target = coarse.repeat(6, 0).repeat(5, 1)
    prediction = np.roll(target, (1, 2), (0, 1))
    prediction[3:6, 10:14] = 1
    target[8:11, 4:9] = 255
    expected = naive_boundary_f1(target, prediction, tolerance)
    scores = metrics.boundary_f1(target, prediction, CLASSES, tolerance=tolerance)
    np.testing.assert_allclose(scores, expected)
    assert 0 < scores[0] <= 1
    assert np.isnan(scores[3])


def test_boundary_f1_by_hand():
    # Ten rows of four pixels, class 1 from row 5 on; predicted from row 7 on. The diagonal is
    # sqrt(10^2 + 4^2) = 10.77, the tolerance 0.2 of it 2.15 pixels: boundary row 5 is 2 from row 7.
    target, prediction = np.zeros((2, 10, 4), np.uint8)
    target[5:], prediction[7:] = 1, 1
    assert metrics.boundary_f1(target, prediction, 2, tolerance=0.2).tolist() == [1, 1]
    # 0.15 of it are 1.6 pixels: too few.
    assert metrics.boundary_f1(target, prediction, 2, tolerance=0.15).tolist() == [0, 0]


def test_boundary_f1_of_a_class_in_one_map_only_is_zero():
    target = np.zeros((6, 6), np.uint8)
    prediction = target.copy()
    prediction[2:4, 2:4] = 1
    assert metrics.boundary_f1(target, prediction, 2).tolist() == [0, 0]


def test_mean_over_images_leaves_out_the_images_without_the_class():
    scores = [np.array([0.2, np.nan, np.nan]), np.array([0.6, 0.5, np.nan])]
    np.testing.assert_allclose(metrics.mean_over_images(scores), [0.4, 0.5, np.nan])


def test_the_edge_of_void_is_no_boundary():
    # Class 0 left, a strip of void in columns 8 to 11, class 1 right; the prediction's border may
    # lie anywhere in the strip, and where it lies farther away it is wrong. The tolerance is 0.05
    # of sqrt(10^2 + 20^2) = 22.4: 1.1 pixels.
    target = np.zeros((10, 20), np.uint8)
    target[:, 12:], target[:, 8:12] = 1, 255
    for column, score in ((9, np.nan), (11, np.nan), (8, np.nan), (4, 0.0)):
        prediction = (np.arange(20)[None] >= column).astype(np.uint8).repeat(10, 0)
        scores = metrics.boundary_f1(target, prediction, 2, tolerance=0.05)
        np.testing.assert_array_equal(scores, [score, score])


def test_a_boundary_in_void_still_finds_the_one_beside_it():
    # The border between rows 4 and 5 is known in columns 0 to 9 and void beyond; the prediction
    # has it there too. All that is judged is right.
    target = np.zeros((10, 20), np.uint8)
    target[5:] = 1
    prediction = target.copy()
    target[3:7, 10:] = 255
    assert metrics.boundary_f1(target, prediction, 2, tolerance=0.05).tolist() == [1, 1]


def test_void_outlines_by_hand():
    # 100 x 100: the tolerance is 0.0075 of 141 pixels, 1.06. Class 1 in rows 40 to 59 of columns 0
    # to 49; void on its right in column 50. Outline of class 1: rows 40 and 59, 50 pixels each, and
    # the 18 others of column 49, beside void. Of the rows' 100 pixels those of column 49 are within
    # the tolerance of void too: 20 of 118.
    target = np.zeros((100, 100), np.uint8)
    target[40:60, :50] = 1
    target[40:60, 50] = 255
    counts = metrics.void_outline_counts(target, 3)
    assert counts[1].tolist() == [20, 118]
    assert counts[2].tolist() == [0, 0]
    np.testing.assert_allclose(metrics.void_outline_share(counts)[1:], [20 / 118, np.nan])
    target[target == 255] = 0
    assert metrics.void_outline_counts(target, 2)[:, 0].tolist() == [0, 0]


def test_void_beside_the_class_counts_in_the_smallest_images_too():
    target = np.array([[0, 255, 1]], np.uint8)  # the tolerance would be 0.02 pixels
    assert metrics.void_outline_counts(target, 2).tolist() == [[1, 1], [1, 1]]
