"""Joint augmentation of pictures and targets, by kornia; elastic deformation as in U-Net."""

import math

import kornia.augmentation as K
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from segmodels.data.dataset import IGNORE_INDEX


def augment(
    picture: NDArray[np.uint8],
    target: NDArray[np.uint8],
    *,
    crop: tuple[int, int],
    zoom: tuple[float, float],
    color_strength: float = 1.0,
    degrade: float = 0.0,
    elastic: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A random part of the picture, zoomed, perhaps flipped, its colours changed: float (3, h, w)
    in [0, 1], and the same part of the target: int64 (h, w).

    picture (H, W, 3), target (H, W): uint8. crop: (h, w). zoom: range of the enlargement, 1 being
    the picture's own scale; it ends where the picture is no larger than the crop. color_strength:
    0 leaves the colours, 1 changes brightness, contrast and saturation by up to 40 %, 2.5 (the
    most) up to darkness. degrade: probability of each of blur, noise and a shadow. elastic: see
    `deformed`; 0 leaves the shapes. Draws from torch's global random state.
    """
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    labels = torch.from_numpy(target)[None, None].float()
    if elastic:
        pixels, labels = deformed(pixels, labels, elastic)
    # kornia's scale is the crop's share of the picture's area.
    share = crop[0] * crop[1] / math.prod(target.shape)
    largest, smallest = min(1.0, share / zoom[0] ** 2), min(1.0, share / zoom[1] ** 2)
    ratio = crop[1] / crop[0]
    transform = K.AugmentationSequential(
        K.RandomResizedCrop(
            crop, scale=(smallest, largest), ratio=(0.9 * ratio, ratio / 0.9), align_corners=False
        ),
        K.RandomHorizontalFlip(p=0.5),
        *_colors(color_strength),
        *_degradations(degrade),
        data_keys=["input", "mask"],
    )
    pixels, labels = transform(pixels, labels)
    return pixels[0].clamp(0, 1), labels[0, 0].long()


def _colors(strength: float) -> list[K.AugmentationBase2D]:
    if not strength:
        return []
    change = 0.4 * strength
    return [
        K.ColorJitter(
            brightness=change, contrast=change, saturation=change, hue=0.03 * strength, p=0.9
        ),
        K.RandomGamma(gamma=(0.7**strength, 1.5**strength), p=0.5),
    ]


def _degradations(probability: float) -> list[K.AugmentationBase2D]:
    """What bad light and a bad lens make of a picture."""
    if not probability:
        return []
    return [
        K.RandomLinearIllumination(gain=(0.1, 0.5), sign=(-1.0, -1.0), p=probability),
        K.RandomGaussianBlur((5, 5), (0.3, 1.5), p=probability),
        K.RandomGaussianNoise(std=0.03, p=probability),
    ]


def deformed(pixels: Tensor, labels: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """U-Net's elastic deformation (section 3.1): displacements drawn on a grid of 3 x 3 from a
    Gaussian of `deviation` pixels, between them bicubic. The picture is mirrored beyond its edge,
    the labels are void there.

    pixels (1, C, H, W), labels (1, 1, H, W): float; they come back in the same shapes.
    """
    height, width = labels.shape[-2:]
    drawn = deviation * torch.randn(1, 2, 3, 3)
    shift = interpolate(drawn, size=(height, width), mode="bicubic", align_corners=True)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # grid_sample counts from the picture's edges, -1 and 1; pixel i's centre is (2 i + 1) / n - 1.
    x = (2 * (columns + shift[:, 0]) + 1) / width - 1
    y = (2 * (rows + shift[:, 1]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)
    moved = grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    # Zero is what grid_sample fills with; the ids are moved by one so that it is none of them.
    ids = grid_sample(labels + 1, grid, mode="nearest", align_corners=False) - 1
    return moved, ids.where(ids >= 0, torch.tensor(float(IGNORE_INDEX)))
