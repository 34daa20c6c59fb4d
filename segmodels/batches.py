"""The batches of a training: which pictures, in which order, and how they are changed.

Every random draw depends on the seed and the position in the training alone.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import augment
from .data import DataError, SegmentationData
from .losses import background_of, border_weights
from .pictures import resize
from .processes import process_count, process_index
from .recipe import Recipe


class AugmentedData(Dataset[tuple[Tensor, ...]]):
    """One epoch's augmented crops: (3, h, w) float in [0, 1], (h, w) int64 and, if the recipe has
    border weights, those of the crop: (h, w) float."""

    def __init__(self, data: SegmentationData, recipe: Recipe, epoch: int) -> None:
        self.data, self.recipe, self.epoch = data, recipe, epoch
        self.shrink = 2 if epoch < recipe.half_size_epochs else 1
        self.background = background_of(data.class_names)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        recipe = self.recipe
        picture, target = self.data.pair(index)
        size = max(1, (recipe.working_size or max(target.shape)) // self.shrink)
        picture, target = resize(picture, size), resize(target, size, nearest=True)
        height, width = (side // self.shrink for side in recipe.crop)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, self.epoch, index))
            pixels, ids = augment(
                picture,
                target,
                crop=(height, width),
                zoom=recipe.zoom,
                color_strength=recipe.color_strength,
                degrade=recipe.degrade,
                elastic=recipe.elastic / self.shrink,
            )
        if not recipe.border_weight:
            return pixels, ids
        border = border_weights(
            ids.numpy().astype(np.uint8),
            weight=recipe.border_weight,
            sigma=recipe.border_sigma / self.shrink,
            background=self.background,
        )
        return pixels, ids, torch.from_numpy(border)


def batch_order(data: SegmentationData, recipe: Recipe, epoch: int) -> list[list[int]]:
    """The pictures of each batch of an epoch; those that fill no batch are left out."""
    generator = torch.Generator().manual_seed(seed_of(recipe.seed, epoch))
    order = torch.randperm(len(data), generator=generator).tolist()
    size = recipe.batch_size
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


def batches_from(
    data: SegmentationData, recipe: Recipe, epoch: int, done: int, workers: int
) -> Iterator[tuple[Tensor, ...]]:
    """The epoch's batches from number `done` on; of each, with several processes, this one's part.

    workers: processes that load pictures; 0: this one does. DataError for a file that cannot be
    used.
    """
    count, index = process_count(), process_index()
    parts = [
        batch[index * len(batch) // count : (index + 1) * len(batch) // count]
        for batch in batch_order(data, recipe, epoch)[done:]
    ]
    loader = DataLoader(
        AugmentedData(data, recipe, epoch), batch_sampler=parts, num_workers=workers
    )
    try:
        yield from loader
    except DataError as error:  # a worker's has the worker's traceback before it
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error


def seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
