import kornia.augmentation as K
import numpy as np
import pytest
import torch

from segmodels.augment import augment

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


def run(pair, seed=0, crop=(48, 64), zoom=(0.7, 1.6)):
    torch.manual_seed(seed)
    return augment(*pair, crop=crop, zoom=zoom)


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
