import kornia.augmentation as K
import numpy as np
import pytest
import torch

from segmodels.training import transforms
from segmodels.training.transforms import augment, displacements

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


def grid_of(height, width):
    """(height, width, 2) the centres of an image's pixels."""
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1)


def test_displacements_are_bicubic_between_three_by_three_draws():
    # Over the whole image they are torch's own bicubic upsampling of the drawn grid.
    torch.manual_seed(1)
    moved = displacements(grid_of(20, 30), (20, 30), 4.0)
    torch.manual_seed(1)
    drawn = 4.0 * torch.randn(1, 2, 3, 3)
    expected = torch.nn.functional.interpolate(
        drawn, size=(20, 30), mode="bicubic", align_corners=True
    )
    torch.testing.assert_close(moved.permute(2, 0, 1)[None], expected, rtol=1e-4, atol=1e-4)


def test_a_part_of_an_image_is_displaced_as_the_whole_is():
    torch.manual_seed(2)
    whole = displacements(grid_of(40, 50), (40, 50), 3.0)
    torch.manual_seed(2)
    part = displacements(grid_of(40, 50)[5:15, 20:45], (40, 50), 3.0)
    torch.testing.assert_close(part, whole[5:15, 20:45], rtol=1e-4, atol=1e-4)


def test_a_constant_displacement_shifts_image_and_labels_alike(monkeypatch):
    # 3 columns to the right and 2 rows down are fetched: what comes from beyond is void.
    shift = torch.tensor([3.0, 2.0])[None, :, None, None].expand(1, 2, 3, 3)
    monkeypatch.setattr(torch, "randn", lambda *_: shift)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 30, 3), np.uint8)
    target = random.integers(0, 5, (20, 30), np.uint8)
    plain = {"crop": (20, 30), "zoom": (1, 1), "horizontal_flip": False, "color_strength": 0}
    pixels, ids = augment(image, target, **plain, elastic=1.0)
    expected = torch.from_numpy(image).permute(2, 0, 1)[:, 2:, 3:] / 255
    torch.testing.assert_close(pixels[:, :-2, :-3], expected, atol=1e-4, rtol=0)
    assert np.array_equal(ids[:-2, :-3].numpy(), target[2:, 3:])
    assert (ids[-2:] == 255).all()
    assert (ids[:, -3:] == 255).all()


@pytest.mark.usefixtures("plain_colors")
def test_image_and_target_are_deformed_together(pair):
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
    centre = torch.tensor([[[100.5, 100.5]]])  # a grid point: drawn, not interpolated
    moves = []
    for seed in range(40):
        torch.manual_seed(seed)
        moves.append(float(displacements(centre, (201, 201), 5.0)[0, 0, 1]))
    assert 3.5 < np.std(moves) < 6.5


# ---- flips and turns ----

EXACT = {"zoom": (1, 1), "horizontal_flip": False, "color_strength": 0}


@pytest.fixture
def numbered():
    """(6, 9) image and target whose every pixel is another."""
    target = np.arange(54, dtype=np.uint8).reshape(6, 9)
    return target[..., None].repeat(3, 2), target


def test_without_changes_the_image_is_the_image(numbered):
    image, target = numbered
    pixels, labels = run(numbered, crop=(6, 9), **EXACT)
    assert np.array_equal(labels.numpy(), target)
    torch.testing.assert_close(pixels, torch.from_numpy(image).permute(2, 0, 1) / 255)


def test_flips_and_quarter_turns_are_numpys(numbered):
    _, target = numbered
    square = target[:, :6]
    expected = {
        turned[::flip].tobytes()
        for flip in (1, -1)
        for k in range(4)
        for turned in [np.rot90(square, k)]
    }
    seen = set()
    for seed in range(60):
        options = {**EXACT, "crop": (6, 6), "vertical_flip": True, "quarter_turns": True}
        pixels, labels = run((square[..., None].repeat(3, 2), square), seed, **options)
        torch.testing.assert_close(pixels[0] * 255, labels.float(), rtol=0, atol=1e-3)
        seen.add(labels.numpy().astype(np.uint8).tobytes())
    assert seen == expected


def test_a_quarter_turn_of_an_oblong_crop_stays_in_the_image(numbered):
    for seed in range(20):
        _, labels = run(numbered, seed, crop=(4, 6), **EXACT, quarter_turns=True)
        assert (labels != 255).all()
        assert len(labels.unique()) == 24


def test_a_rotation_is_scipys():
    from scipy.ndimage import rotate

    rows, columns = np.mgrid[:61, :61]
    smooth = (120 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)).astype(np.uint8)
    torch.manual_seed(4)
    pixels, labels = augment(
        smooth[..., None], np.zeros_like(smooth), crop=(61, 61), **EXACT, rotate=180.0
    )
    torch.manual_seed(4)
    torch.rand((), dtype=torch.float64)  # the area
    torch.rand((), dtype=torch.float64), torch.rand((), dtype=torch.float64)  # top and left
    angle = -180 + 360 * float(torch.rand((), dtype=torch.float64))
    expected = rotate(smooth.astype(float), angle, reshape=False, order=1, mode="constant", cval=-1)
    inside = (labels.numpy() == 0) & (expected >= 0)
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert 0.6 < inside.mean() < 0.95
    difference = np.abs(255 * pixels[0].numpy() - expected)[inside]
    assert np.quantile(difference, 0.98) < 1.5


def test_rotated_corners_are_void(numbered):
    seen = [run(numbered, seed, crop=(6, 9), **EXACT, rotate=45.0)[1] for seed in range(10)]
    assert any((labels == 255).any() for labels in seen)
    assert all((labels[2:4, 3:6] != 255).all() for labels in seen)


def test_border_weights_move_with_the_target(numbered):
    image, target = numbered
    torch.manual_seed(0)
    _, labels, border = augment(
        image, target, target.astype(np.float32), crop=(4, 4), **EXACT, quarter_turns=True
    )
    # A crop of whole pixels' size at any offset: the weight is interpolated, the label nearest.
    assert (border - labels).abs().max() < 10
    assert border.shape == (4, 4)


# ---- crops ----


def test_the_context_of_an_unpadded_network_is_mirrored_beyond_the_image(numbered):
    image, target = numbered
    pixels, labels = run(numbered, crop=(10, 13), context=(2, 2), **EXACT)
    expected = np.pad(image[..., 0], 2, mode="symmetric")
    torch.testing.assert_close(
        pixels[0] * 255, torch.from_numpy(expected).float(), rtol=0, atol=1e-3
    )
    assert np.array_equal(labels[2:-2, 2:-2].numpy(), target)
    assert (labels[:2] == 255).all()


def test_no_more_of_a_large_image_is_read_than_the_crop_sees(monkeypatch):
    sizes = []
    sample = transforms.grid_sample

    def noted(values, *arguments, **options):
        sizes.append(tuple(values.shape[-2:]))
        return sample(values, *arguments, **options)

    monkeypatch.setattr(transforms, "grid_sample", noted)
    image = np.zeros((2000, 3000, 3), np.uint8)
    run((image, image[..., 0]), crop=(64, 64), zoom=(1, 1), elastic=10.0)
    assert sizes[0] == (3, 3)  # the drawn displacements
    assert max(sizes[1]) < 64 + 2 * 60


def test_one_channel_is_augmented_too(numbered):
    image, target = numbered
    pixels, _ = run((image[..., :1], target), crop=(32, 32), color_strength=1.0, degrade=1.0)
    assert pixels.shape == (1, 32, 32)
    assert 0 <= pixels.min() <= pixels.max() <= 1
