import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from segmodels.evaluation import metrics
from segmodels.training.losses import (
    background_of,
    border_weights,
    class_weights,
    lovasz_softmax,
    total_weight,
    weighted_cross_entropy,
)

# ---- class weights ----


def test_class_weights_by_hand():
    # Frequencies 2/8, 5/8, 1/8, their median 2/8: 1, 2/5 and 2; at exponent 1/2 their roots.
    frequencies = np.array([2 / 8, 5 / 8, 1 / 8])
    names = ["a", "b", "c"]
    np.testing.assert_allclose(class_weights(frequencies, names, 1.0), [1, 0.4, 2], rtol=1e-6)
    roots = np.sqrt([1, 0.4, 2])
    np.testing.assert_allclose(class_weights(frequencies, names, 0.5), roots, rtol=1e-6)
    assert class_weights(frequencies, names, 0.0).tolist() == [1, 1, 1]


def test_an_absent_class_weighs_nothing_and_is_named():
    with pytest.warns(UserWarning, match="no training label contains b "):
        weights = class_weights(np.array([0.5, np.nan, 0.25]), ["a", "b", "c"], 1.0)
    # The median of 0.5 and 0.25 is 0.375: 0.75 and 1.5.
    assert weights.tolist() == [0.75, 0, 1.5]


# ---- border weights ----


def regions_of(target, background):
    """Sets of pixels, the connected regions of each class, by flood filling."""
    height, width = target.shape
    seen, cells = np.zeros(target.shape, bool), []
    for start in np.ndindex(*target.shape):
        if seen[start] or target[start] in (background, 255):
            continue
        cell, left = set(), [start]
        seen[start] = True
        while left:
            y, x = left.pop()
            cell.add((y, x))
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= b < height and 0 <= a < width
                if inside and not seen[b, a] and target[b, a] == target[start]:
                    seen[b, a] = True
                    left.append((b, a))
        cells.append(cell)
    return cells


def naive_border_weights(target, cells, weight, sigma):
    """Equation 2 with the distance to every pixel of every cell's border, between the cells."""
    height, width = target.shape
    inside = {pixel: number for number, cell in enumerate(cells) for pixel in cell}

    def neighbours(y, x):
        near = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        return [(b, a) for b, a in near if 0 <= b < height and 0 <= a < width]

    borders = [
        np.array([p for p in cell if any(n not in cell for n in neighbours(*p))]) for cell in cells
    ]
    borders = [border for border in borders if len(border)]
    weights = np.zeros(target.shape)
    for y, x in np.ndindex(*target.shape):
        own = inside.get((y, x))
        met = {inside.get(n) for n in neighbours(y, x)} - {own, None}
        between = own is None or met
        if target[y, x] != 255 and between and len(borders) > 1:
            distances = sorted(np.hypot(*(border - (y, x)).T).min() for border in borders)
            weights[y, x] = weight * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_border_weights_are_the_naive_ones(background, sigma):
    random = np.random.default_rng(0)
    target = random.choice(3, (8, 10), p=[0.6, 0.3, 0.1]).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    target[5:9, 7:20] = 255
    weights = border_weights(target, weight=10, sigma=sigma, background=background)
    expected = naive_border_weights(target, regions_of(target, background), 10, sigma)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
    assert weights.dtype == np.float32
    assert weights.max() > 1


def test_border_weights_between_two_cells_by_hand():
    # Cells at columns 0 and 5, background between. Column 2 is 2 from the one and 3 from the
    # other: 10 exp(-25 / 50) = 6.0653, and so is every column between them; inside a cell, 0.
    target = np.zeros((3, 6), np.uint8)
    target[:, [0, 5]] = 1
    weights = border_weights(target, weight=10, sigma=5, background=0)
    expected = np.tile([0, *[10 * np.exp(-0.5)] * 4, 0], (3, 1))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def touching_squares():
    """Two squares that share an edge, one class, told apart by their instance ids."""
    cells = np.zeros((9, 12), np.int32)
    cells[2:7, 1:6], cells[2:7, 6:11] = 7, 300
    return cells


def test_border_weights_of_touching_squares_are_the_naive_ones():
    cells = touching_squares()
    target = (cells > 0).astype(np.uint8)
    options = {"weight": 10, "sigma": 5, "background": 0}
    weights = border_weights(target, cells=cells, **options)
    sets = [set(map(tuple, np.argwhere(cells == number))) for number in (7, 300)]
    np.testing.assert_allclose(weights, naive_border_weights(target, sets, 10, 5), rtol=1e-5)
    # Where they meet, a pixel's own border is at 0 and the other's at 1: 10 exp(-1 / 50).
    np.testing.assert_allclose(weights[2:7, 5:7], 10 * np.exp(-1 / 50), rtol=1e-5)
    assert not weights[2:7, 1:5].any()
    assert not border_weights(target, **options).any()  # by connected components one cell


def test_with_a_gap_of_one_pixel_no_weight_is_added_inside_the_squares():
    target = np.zeros((9, 13), np.uint8)
    target[2:7, 1:6] = target[2:7, 7:12] = 1
    weights = border_weights(target, weight=10, sigma=5, background=0)
    assert not weights[target == 1].any()
    np.testing.assert_allclose(weights[2:7, 6], 10 * np.exp(-4 / 50), rtol=1e-5)
    assert weights.argmax() % 13 == 6


@pytest.mark.parametrize("cells", [0, 1])
def test_without_two_cells_there_are_no_border_weights(cells):
    target = np.zeros((5, 5), np.uint8)
    target[2, 2] = cells
    assert not border_weights(target, weight=10, sigma=5, background=0).any()


@pytest.mark.parametrize(
    ("names", "background"),
    [
        (["cell", "Background"], 1),
        (["other", "cell"], 0),
        (["background", "cat", "dog"], 0),
        (["sky", "road", "car"], None),
    ],
)
def test_the_background_is_no_cell(names, background):
    assert background_of(names) == background


# ---- the loss ----


@pytest.fixture
def batch():
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 5))
    target[0, :2] = 255
    return torch.randn(2, 3, 4, 5), target, torch.tensor([1.0, 0.5, 2.0]), torch.rand(2, 4, 5)


def test_the_loss_is_the_weighted_mean_of_the_pixels(batch):
    logits, target, weights, border = batch
    log_softmax = logits.double() - logits.double().exp().sum(1, keepdim=True).log()
    total = norm = 0.0
    for n, y, x in np.ndindex(2, 4, 5):
        class_id = int(target[n, y, x])
        if class_id != 255:
            weight = float(weights[class_id] + border[n, y, x])
            total -= weight * float(log_softmax[n, class_id, y, x])
            norm += weight
    assert float(weighted_cross_entropy(*batch)) == pytest.approx(total / norm, rel=1e-5)
    assert float(total_weight(target, weights, border)) == pytest.approx(norm, rel=1e-5)


def test_without_borders_it_is_pytorchs(batch):
    logits, target, weights, _ = batch
    own = weighted_cross_entropy(logits, target, weights)
    assert own == cross_entropy(logits, target, weights, ignore_index=255)
    zero = weighted_cross_entropy(logits, target, weights, torch.zeros(2, 4, 5))
    assert float(zero) == pytest.approx(float(own), rel=1e-6)


def test_parts_of_a_batch_weigh_as_much_as_their_pixels(batch):
    logits, target, weights, border = batch
    whole = total_weight(target, weights, border)
    parts = [(logits[n : n + 1], target[n : n + 1], weights, border[n : n + 1]) for n in range(2)]
    shares = [total_weight(*part[1:]) / whole for part in parts]
    mean = sum(s * weighted_cross_entropy(*part) for s, part in zip(shares, parts, strict=True))
    assert float(mean) == pytest.approx(float(weighted_cross_entropy(*batch)), rel=1e-6)


# ---- Lovász-softmax ----


def naive_lovasz(probabilities, target):
    """Equations 8 and 9 with sets of pixels: probabilities (pixels, C), target (pixels,)."""
    losses = []
    for class_id in sorted(set(target)):
        true = {i for i, t in enumerate(target) if t == class_id}
        errors = [abs((i in true) - p[class_id]) for i, p in enumerate(probabilities)]

        def jaccard_loss(wrong, true=true):
            return 1 - len(true - wrong) / len(true | wrong)

        wrong, loss = set(), 0.0
        for pixel in sorted(range(len(target)), key=lambda i: -errors[i]):
            before = jaccard_loss(wrong)
            wrong.add(pixel)
            loss += errors[pixel] * (jaccard_loss(wrong) - before)
        losses.append(loss)
    return sum(losses) / len(losses)


def test_lovasz_softmax_is_the_naive_one(batch):
    logits, target = batch[:2]
    known = target != 255
    probabilities = logits.double().softmax(1).movedim(1, -1)[known]
    expected = naive_lovasz(probabilities.tolist(), target[known].tolist())
    assert float(lovasz_softmax(logits, target)) == pytest.approx(expected, rel=1e-5)


def test_lovasz_softmax_by_hand():
    # Two pixels of class 0 at 3/4 and 1/4, one of class 1, at 1/2. Class 0: errors 3/4, 1/2, 1/4.
    # The first misses one of two pixels, 1/2; the second is another's, 1 - 1/3, 1/6 more; then all
    # are wrong, 1/3 more: 3/4 1/2 + 1/2 1/6 + 1/4 1/3 = 13/24. Class 1: its own pixel's error is
    # 1/2, the others' 3/4 and 1/4; 1 - 1/2, then all is lost, 1/2 more: 3/4 1/2 + 1/2 1/2 = 15/24.
    probability = torch.tensor([[3 / 4, 1 / 4, 1 / 2]])
    logits = torch.stack([probability, 1 - probability], 1).log()[..., None]
    loss = lovasz_softmax(logits, torch.tensor([[[0], [0], [1]]]))
    assert float(loss) == pytest.approx((13 / 24 + 15 / 24) / 2)


def test_of_certain_answers_lovasz_softmax_is_one_less_mean_iou(batch):
    logits, target = batch[:2]
    certain = 100 * torch.nn.functional.one_hot(logits.argmax(1)).movedim(-1, 1).float()
    matrix = metrics.confusion_matrix(
        target.numpy().astype(np.uint8), logits.argmax(1).numpy().astype(np.uint8), 3
    )
    expected = 1 - metrics.mean_iou(matrix)
    assert float(lovasz_softmax(certain, target)) == pytest.approx(expected, rel=1e-6)


def test_the_gradient_of_lovasz_softmax_is_that_of_finite_differences(batch):
    logits, target = batch[0].double().requires_grad_(), batch[1]
    assert torch.autograd.gradcheck(lambda values: lovasz_softmax(values, target), logits)


def test_where_all_is_void_lovasz_softmax_is_nothing(batch):
    logits = batch[0].requires_grad_()
    loss = lovasz_softmax(logits, torch.full((2, 4, 5), 255))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
