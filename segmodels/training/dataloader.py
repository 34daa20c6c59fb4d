"""The batches of a training: which pictures, in which order, and how they are changed.

Every random draw depends on the seed and the position in the training alone.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segmodels.data.dataset import DataError, SegmentationData
from segmodels.data.image_io import resize
from segmodels.training.config import TrainingConfig
from segmodels.training.losses import background_of, border_weights
from segmodels.training.transforms import augment
from segmodels.utils.distributed import process_count, process_index


class AugmentedData(Dataset[tuple[Tensor, ...]]):
    """One epoch's augmented crops: (3, h, w) float in [0, 1], (h, w) int64 and, if the config has
    border weights, those of the crop: (h, w) float."""

    def __init__(self, data: SegmentationData, config: TrainingConfig, epoch: int) -> None:
        self.data, self.config, self.epoch = data, config, epoch
        self.shrink = 2 if epoch < config.half_size_epochs else 1
        self.background = background_of(data.class_names)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        config = self.config
        picture, target = self.data.pair(index)
        size = max(1, (config.working_size or max(target.shape)) // self.shrink)
        picture, target = resize(picture, size), resize(target, size, nearest=True)
        height, width = (side // self.shrink for side in config.crop)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, self.epoch, index))
            pixels, ids = augment(
                picture,
                target,
                crop=(height, width),
                zoom=config.zoom,
                color_strength=config.color_strength,
                degrade=config.degrade,
                elastic=config.elastic / self.shrink,
            )
        if not config.border_weight:
            return pixels, ids
        border = border_weights(
            ids.numpy().astype(np.uint8),
            weight=config.border_weight,
            sigma=config.border_sigma / self.shrink,
            background=self.background,
        )
        return pixels, ids, torch.from_numpy(border)


def batch_order(data: SegmentationData, config: TrainingConfig, epoch: int) -> list[list[int]]:
    """The pictures of each batch of an epoch; those that fill no batch are left out."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    order = torch.randperm(len(data), generator=generator).tolist()
    size = config.batch_size
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


def batches_from(
    data: SegmentationData, config: TrainingConfig, epoch: int, done: int, workers: int
) -> Iterator[tuple[Tensor, ...]]:
    """The epoch's batches from number `done` on; of each, with several processes, this one's part.

    workers: processes that load pictures; 0: this one does. DataError for a file that cannot be
    used.
    """
    count, index = process_count(), process_index()
    parts = [
        batch[index * len(batch) // count : (index + 1) * len(batch) // count]
        for batch in batch_order(data, config, epoch)[done:]
    ]
    loader = DataLoader(
        AugmentedData(data, config, epoch), batch_sampler=parts, num_workers=workers
    )
    try:
        yield from loader
    except DataError as error:  # a worker's has the worker's traceback before it
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error


def seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
