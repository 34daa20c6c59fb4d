import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels.data.dataset import DataError, open_data
from segmodels.training import dataloader
from segmodels.training.dataloader import (
    AugmentedData,
    BorderCache,
    WorkerError,
    batches_from,
    channel_statistics,
    convert_channels,
    seed_of,
)
from tests.support.trainings import config_for, tiny_trainer


def test_every_epoch_sees_every_picture_once_in_its_own_order(camvid, monkeypatch):
    monkeypatch.setattr(AugmentedData, "__getitem__", lambda self, index: (self.epoch, index))
    trainer = tiny_trainer(camvid)
    seen = []
    for epoch in range(3):
        trainer.step = 3 * epoch
        batches = list(trainer.batches(0))
        assert all((numbers == epoch).all() for numbers, _ in batches)
        seen.append(torch.cat([indices for _, indices in batches]).tolist())
    assert all(sorted(order) == [0, 1, 2, 3, 4, 5] for order in seen)
    assert len({tuple(order) for order in seen}) > 1
    trainer.step = 4  # the second batch of the second epoch
    rest = torch.cat([indices for _, indices in trainer.batches(0)]).tolist()
    assert rest == seen[1][2:]


def test_half_size_epochs_halve_pictures_and_crops(camvid, monkeypatch):
    calls = []

    def spy(image, target, border, *, crop, zoom, elastic, **others):
        calls.append((image.shape, target.shape, crop, zoom, elastic))
        return augment(image, target, border, crop=crop, zoom=zoom, elastic=elastic, **others)

    augment = dataloader.augment
    monkeypatch.setattr(dataloader, "augment", spy)
    trainer = tiny_trainer(camvid, half_size_epochs=1, working_size=36, elastic=2.0)
    shapes = []
    for trainer.step in (0, 3):
        pixels, target = next(trainer.batches(0))
        shapes.append((tuple(pixels.shape), tuple(target.shape)))
    # 48 x 40 at a working size of 36 is 36 x 30, at half of that 18 x 15.
    assert calls[0] == ((15, 18, 3), (15, 18), (16, 16), (0.7, 1.6), 1.0)
    assert calls[2] == ((30, 36, 3), (30, 36), (32, 32), (0.7, 1.6), 2.0)
    assert shapes == [((2, 3, 16, 16), (2, 16, 16)), ((2, 3, 32, 32), (2, 32, 32))]


def test_crops_depend_on_seed_epoch_and_picture_alone(camvid):
    data = open_data(camvid, "train")

    def crop(epoch=0, index=0, **options):
        torch.rand(1)  # whatever the random state is, which stays as it is
        before = torch.get_rng_state()
        pixels, _ = AugmentedData(data, config_for(camvid, **options), epoch)[index]
        assert torch.equal(torch.get_rng_state(), before)
        return pixels

    assert torch.equal(crop(), crop())
    for other in (crop(epoch=1), crop(index=1), crop(seed=1)):
        assert not torch.equal(crop(), other)


def test_worker_processes_give_the_same_batches(camvid):
    trainer = tiny_trainer(camvid)
    for own, theirs in zip(trainer.batches(0), trainer.batches(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))


def test_a_config_reaches_the_augmentation(camvid, monkeypatch):
    seen = {}
    augment = dataloader.augment
    monkeypatch.setattr(
        dataloader,
        "augment",
        lambda *pair, **options: seen.update(options) or augment(*pair, **options),
    )
    options = {"color_strength": 2.0, "degrade": 0.25, "elastic": 3.0, "zoom": (0.5, 2.0)}
    options |= {"rotate": 30.0, "vertical_flip": True, "quarter_turns": True}
    options |= {"horizontal_flip": False}
    AugmentedData(open_data(camvid, "train"), config_for(camvid, **options), 0)[0]
    assert seen == {"crop": (32, 32), "context": (0, 0), **options}


def test_processes_share_each_batch_in_order(camvid, monkeypatch):
    monkeypatch.setattr(AugmentedData, "__getitem__", lambda self, index: (index,))
    config, data = config_for(camvid, batch_size=5), open_data(camvid, "train")
    crops = AugmentedData(data, config, 0)
    (whole,) = [batch[0].tolist() for batch in batches_from(crops, 0, 0)]
    parts = []
    monkeypatch.setattr(dataloader, "process_count", lambda: 3)
    for index in range(3):
        monkeypatch.setattr(dataloader, "process_index", lambda index=index: index)
        parts.append(next(batches_from(crops, 0, 0))[0].tolist())
    assert [len(part) for part in parts] == [1, 2, 2]
    assert [*parts[0], *parts[1], *parts[2]] == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_breaks_while_training_is_named_without_a_traceback(camvid, workers):
    trainer = tiny_trainer(camvid)
    label = trainer.data.samples[0].label
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(label)
    with pytest.raises(DataError) as caught:
        list(trainer.batches(workers))
    assert str(caught.value).startswith(f"{label} has ids [77]; expected 0 to 2")


def test_the_main_process_draws_as_a_single_one_does():
    assert seed_of(3, 7, 0) == seed_of(3, 7)  # NumPy fills its entropy up with zeros
    assert seed_of(3, 7, 1) != seed_of(3, 7)


# ---- border weights ----


class Instances:
    """A dataset of one image whose labels hold instances."""

    class_names = ("background", "cell")

    def __init__(self, cells):
        self._cells, self.calls = cells, 0

    def cells(self, _):
        self.calls += 1
        return self._cells


def test_border_weights_are_computed_once_and_from_instances(camvid, tmp_path):
    cells = np.zeros((20, 20), np.int32)
    cells[4:16, 2:10], cells[4:16, 10:18] = 1, 2  # they touch
    data, config = Instances(cells), config_for(camvid, border_weight=10.0)
    target = (cells > 0).astype(np.uint8)
    caches = [BorderCache(tmp_path), BorderCache(tmp_path), BorderCache(None)]
    first, second, uncached = (cache.weights(data, 0, target, config, 1) for cache in caches)
    assert data.calls == 2
    assert np.array_equal(first, second)
    np.testing.assert_allclose(first, uncached, rtol=1e-3)
    assert first[10, 9] > 9.5
    halved = BorderCache(tmp_path).weights(data, 0, target[::2, ::2], config, 2)
    assert halved.shape == (10, 10)
    assert halved[5, 4] > 9


def test_without_room_for_the_cache_border_weights_are_computed_again(camvid, tmp_path):
    data, config = Instances(None), config_for(camvid, border_weight=10.0)
    target = np.zeros((8, 9), np.uint8)
    target[:, [1, 7]] = 1
    cache = BorderCache(tmp_path / "gone")
    first = cache.weights(data, 0, target, config, 1)
    assert np.array_equal(cache.weights(data, 0, target, config, 1), first)
    assert first.max() > 3


# ---- channels ----


def test_grey_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(
        convert_channels(image, 1)[..., 0], np.array(Image.fromarray(image).convert("L"))
    )
    assert convert_channels(image, 3) is image
    with pytest.raises(DataError, match="the images have 3 channels, but the network expects 4"):
        convert_channels(image, 4)


def test_a_killed_worker_is_told_in_a_sentence(camvid, monkeypatch):
    def killed(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

    trainer = tiny_trainer(camvid)
    monkeypatch.setattr(AugmentedData, "__getitem__", killed)
    with pytest.raises(WorkerError, match=r"ended unexpectedly .*fewer --workers than 1"):
        list(trainer.batches(1))


def test_statistics_of_channels_are_numpys(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 4), np.uint8)
    images[..., 3] = 51
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, image in enumerate(images):
        np.save(tmp_path / "images" / f"{number}.npy", image)
        Image.fromarray(255 * (image[..., 0] > 99).astype(np.uint8)).save(
            tmp_path / "masks" / f"{number}.png"
        )
    mean, std = channel_statistics(open_data(tmp_path, "train"))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std[:3], (images / 255).std((0, 1, 2))[:3], atol=1e-6)
    assert std[3] == 0.001
