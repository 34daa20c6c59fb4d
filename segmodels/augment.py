"""Joint augmentation of pictures and targets, by kornia."""

import math

import kornia.augmentation as K
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def augment(
    picture: NDArray[np.uint8],
    target: NDArray[np.uint8],
    *,
    crop: tuple[int, int],
    zoom: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """A random part of the picture, zoomed, perhaps flipped, its colours changed: float (3, h, w)
    in [0, 1], and the same part of the target: int64 (h, w).

    picture (H, W, 3), target (H, W): uint8. crop: (h, w). zoom: range of the enlargement, 1 being
    the picture's own scale; it ends where the picture is no larger than the crop. Draws from
    torch's global random state.
    """
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    labels = torch.from_numpy(target)[None, None].float()
    # kornia's scale is the crop's share of the picture's area.
    share = crop[0] * crop[1] / math.prod(target.shape)
    largest, smallest = min(1.0, share / zoom[0] ** 2), min(1.0, share / zoom[1] ** 2)
    ratio = crop[1] / crop[0]
    transform = K.AugmentationSequential(
        K.RandomResizedCrop(
            crop, scale=(smallest, largest), ratio=(0.9 * ratio, ratio / 0.9), align_corners=False
        ),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.03, p=0.9),
        K.RandomGamma(gamma=(0.7, 1.5), p=0.5),
        data_keys=["input", "mask"],
    )
    pixels, labels = transform(pixels, labels)
    return pixels[0].clamp(0, 1), labels[0, 0].long()
