import kornia.augmentation as K
import numpy as np
import pytest
import torch

from segmodels.training.transforms import augment, deformed

IDS = [0, 1, 2, 7, 255]


@pytest.fixture
def pair():
    """Blocks of ids; the picture's red is 40 times the block's place in IDS, so that it can be
    read back."""
    random = np.random.default_rng(0)
    places = random.integers(0, len(IDS), (6, 8)).repeat(16, 0).repeat(16, 1)
    target = np.array(IDS, np.uint8)[places]
    picture = np.zeros((*target.shape, 3), np.uint8)
    picture[..., 0] = 40 * places
    return picture, target


def run(pair, seed=0, crop=(48, 64), zoom=(0.7, 1.6), **options):
    torch.manual_seed(seed)
    return augment(*pair, crop=crop, zoom=zoom, **options)


@pytest.fixture
def plain_colors(monkeypatch):
    """Augmentation without the change of colours."""
    monkeypatch.setattr(K, "ColorJitter", lambda **_: K.RandomHorizontalFlip(p=0.0))
    monkeypatch.setattr(K, "RandomGamma", lambda **_: K.RandomHorizontalFlip(p=0.0))


def test_only_ids_of_the_target_appear(pair):
    seen = torch.cat([run(pair, seed)[1].unique() for seed in range(8)]).unique()
    assert seen.dtype == torch.int64
    assert seen.tolist() == IDS


@pytest.mark.usefixtures("plain_colors")
def test_picture_and_target_move_together(pair):
    for seed in range(8):
        pixels, target = run(pair, seed)
        places = pixels[0] * 255 / 40
        # Between two blocks the picture is interpolated and the target is not; inside a block
        # they must tell the same.
        inside = (places - places.round()).abs() < 1e-3
        same = torch.tensor(IDS)[places.round().long().clamp(0, 4)] == target
        assert inside.float().mean() > 0.6
        assert same[inside].float().mean() > 0.98


@pytest.mark.usefixtures("plain_colors")
def test_half_of_the_pictures_are_flipped():
    target = np.arange(64, dtype=np.uint8)[None].repeat(48, 0)
    picture = target[..., None].repeat(3, 2)
    results = [run((picture, target), seed)[1][0] for seed in range(40)]
    flipped = sum(int(row[0] > row[-1]) for row in results)
    assert 10 <= flipped <= 30  # 40 coins: 20 +- 3.2


def test_the_seed_decides(pair):
    first, second, other = run(pair, 1), run(pair, 1), run(pair, 2)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("size", [(96, 128), (48, 64), (20, 30), (20, 200), (1, 1)])
def test_the_crop_has_its_shape_from_pictures_of_any_size(pair, size):
    picture, target = (np.resize(array, (*size, *array.shape[2:])) for array in pair)
    pixels, labels = run((picture, target))
    assert pixels.shape == (3, 48, 64)
    assert pixels.dtype == torch.float32
    assert labels.shape == (48, 64)
    assert 0 <= pixels.min() <= pixels.max() <= 1


@pytest.mark.usefixtures("plain_colors")
@pytest.mark.parametrize(("zoom", "part"), [((1, 1), 48 * 64), ((2, 2), 24 * 32)])
def test_zoom_is_the_enlargement(zoom, part):
    # Every pixel of the picture is its own: 96 x 128 of them in red and green. A crop of 48 x 64
    # holds 3072 of them, at twice the size a quarter.
    rows, columns = np.mgrid[:96, :128].astype(np.uint8)
    picture = np.stack([rows, columns, 0 * rows], 2)
    pixels, _ = run((picture, rows), crop=(48, 64), zoom=zoom)
    spans = pixels[:2].amax((1, 2)) - pixels[:2].amin((1, 2))
    assert float((255 * spans + 1).prod()) == pytest.approx(part, rel=0.1)


# ---- colours ----


def test_without_strength_the_colours_stay(pair):
    whole = {"crop": (96, 128), "zoom": (1, 1)}
    pixels, target = run(pair, **whole, color_strength=0)
    red = torch.zeros(256).index_fill(0, torch.tensor(IDS), 0)
    red[IDS] = torch.arange(5) * 40 / 255
    inside = (pixels[0] - red[target]).abs() < 1e-5
    assert inside.float().mean() > 0.8  # the rest lies between two blocks
    assert not pixels[1:].any()


def test_the_strength_is_how_far_brightness_goes():
    grey = np.full((64, 64, 3), 100, np.uint8), np.zeros((64, 64), np.uint8)
    spread = {
        strength: np.std(
            [float(run(grey, s, color_strength=strength)[0].mean()) for s in range(30)]
        )
        for strength in (0.5, 1.0, 2.5)
    }
    assert spread[0.5] < 0.7 * spread[1.0] < 0.7 * 0.8 * spread[2.5]


@pytest.mark.parametrize("size", [(96, 128), (33, 70)])
def test_degraded_pictures_stay_pictures_and_their_targets_whole(pair, size):
    picture, target = (np.resize(array, (*size, *array.shape[2:])) for array in pair)
    plain = run((picture, target), color_strength=0)
    pixels, labels = run((picture, target), color_strength=0, degrade=1.0)
    assert torch.equal(labels, plain[1])
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert (pixels - plain[0]).abs().mean() > 0.01


# ---- elastic deformation ----


def test_deformation_by_nothing_changes_nothing(pair):
    pixels = torch.rand(1, 3, 20, 30)
    labels = torch.randint(0, 5, (1, 1, 20, 30)).float()
    moved, ids = deformed(pixels, labels, 0.0)
    torch.testing.assert_close(moved, pixels)
    assert torch.equal(ids, labels)


def test_a_constant_displacement_shifts_picture_and_labels_alike(monkeypatch):
    # 3 columns to the right and 2 rows down are fetched: what comes from beyond is void.
    shift = torch.tensor([3.0, 2.0])[None, :, None, None].expand(1, 2, 3, 3)
    monkeypatch.setattr(torch, "randn", lambda *_: shift)
    pixels = torch.rand(1, 3, 20, 30)
    labels = torch.randint(0, 5, (1, 1, 20, 30)).float()
    moved, ids = deformed(pixels, labels, 1.0)
    torch.testing.assert_close(moved[..., :-2, :-3], pixels[..., 2:, 3:], atol=1e-4, rtol=0)
    assert torch.equal(ids[..., :-2, :-3], labels[..., 2:, 3:])
    assert (ids[..., -2:, :] == 255).all()
    assert (ids[..., -3:] == 255).all()


@pytest.mark.usefixtures("plain_colors")
def test_picture_and_target_are_deformed_together(pair):
    seen = set()
    for seed in range(5):
        pixels, target = run(pair, seed, elastic=6.0)
        places = pixels[0] * 255 / 40
        inside = ((places - places.round()).abs() < 1e-3) & (target != 255)
        same = torch.tensor(IDS)[places.round().long().clamp(0, 4)] == target
        assert same[inside].float().mean() > 0.97
        seen |= set(target.unique().tolist())
    assert seen == set(IDS)


def test_displacements_have_the_deviation_that_was_asked_for():
    rows = torch.arange(200.0)[None, None, :, None].expand(1, 1, 200, 200)
    moves = []
    for seed in range(40):
        torch.manual_seed(seed)
        moved, _ = deformed(rows, rows, 5.0)
        moves.append(float(moved[0, 0, 100, 100] - 100))  # a grid point: drawn, not interpolated
    assert 3.5 < np.std(moves) < 6.5
