"""Loading of training batches: order of the images, cropping and augmentation.

All random numbers depend only on the seed and the position in the training.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segmodels.data.dataset import DataError, SegmentationData
from segmodels.data.resizing import resize
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.losses import background_of, border_weights
from segmodels.training.transforms import augment
from segmodels.utils.distributed import process_count, process_index
from segmodels.utils.files import atomic_write
from segmodels.utils.formatting import count_of


class WorkerError(TrainingError):
    """A data loader process was terminated unexpectedly."""


class BorderCache:
    """Cache on disk for the border weights of whole targets.

    Args:
        folder: Folder of the cache, shared by the data loader processes; None: no cache.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def weights(
        self,
        data: SegmentationData,
        index: int,
        target: NDArray[np.uint8],
        config: TrainingConfig,
        shrink: int,
    ) -> NDArray[np.float32]:
        """Return the `border_weights` of an image, computing them if they are not cached.

        Args:
            data: The training split.
            index: Index of the image.
            target: (H, W) class ids of the image at its training size.
            config: The options.
            shrink: Divisor of the image size in this epoch, 1 or 2.

        Returns:
            (H, W) float32.
        """
        path = None
        if self.folder is not None:
            path = self.folder / f"{index}-{target.shape[0]}x{target.shape[1]}.npy"
            if path.exists():
                return np.load(path).astype(np.float32)
        cells = data.cells(index)
        weights = border_weights(
            target,
            weight=config.border_weight,
            sigma=config.border_sigma / shrink,
            background=background_of(data.class_names),
            cells=None if cells is None else _resized_ids(cells, target.shape),
        )
        if path is not None:
            # If the disk is full, the weights are recomputed next time.
            with suppress(OSError), atomic_write(path) as scratch, open(scratch, "wb") as file:
                np.save(file, weights.astype(np.float16))
            return weights.astype(np.float16).astype(np.float32)  # same precision as from the cache
        return weights


class AugmentedData(Dataset[tuple[Tensor, ...]]):
    """The augmented crops of an epoch.

    Each item is the image (C, h, w), float in [0, 1], the target (h, w), int64, and, if the config
    has a border weight, the border weights (h, w), float.

    Args:
        data: The training split.
        config: The options, all resolved.
        epoch: The epoch, counted from 0.
        context: Rows and columns on either side of the crop that an unpadded network consumes.
        borders: Cache for border weights; None: compute them for each crop.
    """

    def __init__(
        self,
        data: SegmentationData,
        config: TrainingConfig,
        epoch: int,
        context: tuple[int, int] = (0, 0),
        borders: BorderCache | None = None,
    ) -> None:
        self.data, self.config, self.epoch = data, config, epoch
        self.shrink = 2 if epoch < config.half_size_epochs else 1
        self.context = context
        self.borders = borders or BorderCache(None)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        config = self.config
        image, target = self.data.pair(index)
        size = max(1, (config.working_size or max(target.shape)) // self.shrink)
        image, target = resize(image, size), resize(target, size, nearest=True)
        border = None
        if config.border_weight:
            border = self.borders.weights(self.data, index, target, config, self.shrink)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, self.epoch, index))
            return augment(
                convert_channels(image, config.in_channels or 3),
                target,
                border,
                crop=crop_of(config, self.shrink, (target.shape[0], target.shape[1])),
                zoom=config.zoom,
                context=(self.context[0], self.context[1]),
                horizontal_flip=config.horizontal_flip,
                vertical_flip=config.vertical_flip,
                quarter_turns=config.quarter_turns,
                rotate=config.rotate,
                elastic=config.elastic / self.shrink,
                color_strength=config.color_strength,
                degrade=config.degrade,
            )


def crop_of(config: TrainingConfig, shrink: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the network's input: the size of the crop or, for a crop of (0, 0), of the
    whole image. `shrink` divides only the crop."""
    assert config.crop is not None
    if config.crop == (0, 0):
        return image_size
    return max(1, config.crop[0] // shrink), max(1, config.crop[1] // shrink)


def convert_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Convert an RGB image to greyscale if `channels` is 1; return other images unchanged.

    Args:
        image: (H, W, C).
        channels: Number of input channels of the network.

    Returns:
        (H, W, channels).

    Raises:
        DataError: If the image has another number of channels.
    """
    if image.shape[2] == channels:
        return image
    if channels == 1 and image.shape[2] == 3:
        # ITU-R 601-2 in the integer arithmetic of Pillow, which is used for prediction.
        weights = np.array([19595, 38470, 7471], np.uint32)
        return ((image.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]
    raise DataError(
        f"the images have {count_of(image.shape[2], 'channel')}, but the network expects "
        f"{channels}: use --in-channels {image.shape[2]}"
    )


def _resized_ids(cells: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.integer]:
    """Resize cell ids by nearest neighbour, as targets are resized."""
    rows = (np.arange(shape[0]) + 0.5) * cells.shape[0] // shape[0]
    columns = (np.arange(shape[1]) + 0.5) * cells.shape[1] // shape[1]
    return cells[rows.astype(int)[:, None], columns.astype(int)]


def channel_statistics(data: SegmentationData) -> tuple[list[float], list[float]]:
    """Compute the mean and standard deviation of each channel over all pixels, scaled to [0, 1]."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for index in range(len(data)):
        image = data.image(index)
        pixels = image.reshape(-1, image.shape[2]) / 255
        count += len(pixels)
        total, squares = total + pixels.sum(0), squares + (pixels**2).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))  # > 0 for constant channels
    return [round(float(v), 6) for v in mean], [round(float(v), 6) for v in std]


def batch_order(data: SegmentationData, config: TrainingConfig, epoch: int) -> list[list[int]]:
    """The indices of the images in each batch of an epoch; an incomplete last batch is dropped."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    order = torch.randperm(len(data), generator=generator).tolist()
    assert config.batch_size
    size = config.batch_size
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


def batches_from(crops: AugmentedData, done: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """Load the remaining batches of an epoch; with several processes, this one's part of each.

    Args:
        crops: The crops of the epoch.
        done: Number of batches to skip.
        workers: Number of data loader processes; 0: load in this process.

    Raises:
        DataError: If a file cannot be used.
        WorkerError: If a data loader process is killed.
    """
    count, index = process_count(), process_index()
    parts = [
        batch[index * len(batch) // count : (index + 1) * len(batch) // count]
        for batch in batch_order(crops.data, crops.config, crops.epoch)[done:]
    ]
    loader = DataLoader(crops, batch_sampler=parts, num_workers=workers)
    try:
        yield from loader
    except DataError as error:  # in workers, torch prepends the traceback to the message
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            f"a data loader process ended unexpectedly ({str(error).splitlines()[0]}), most likely "
            "because memory ran out. The steps so far are saved: run the same command again with "
            f"fewer --workers than {workers}"
        ) from error


def seed_of(*numbers: int) -> int:
    """Derive a seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
