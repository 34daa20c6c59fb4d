"""Joint augmentation of images, targets and weight maps.

One sampling grid holds all that moves pixels (zoom, flips, turns, U-Net's elastic deformation), so
that an image is interpolated once, and no more of it is touched than the crop sees. Changes of
colour are kornia's.
"""

import math

import kornia.augmentation as K
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from segmodels.data.dataset import IGNORE_INDEX


def augment(
    image: NDArray[np.uint8],
    target: NDArray[np.uint8],
    border: NDArray[np.float32] | None = None,
    *,
    crop: tuple[int, int],
    zoom: tuple[float, float],
    context: tuple[int, int] = (0, 0),
    horizontal_flip: bool = True,
    vertical_flip: bool = False,
    quarter_turns: bool = False,
    rotate: float = 0.0,
    elastic: float = 0.0,
    color_strength: float = 1.0,
    degrade: float = 0.0,
) -> tuple[Tensor, ...]:
    """A random part of an image, perhaps flipped, turned and deformed, its colours changed.

    Draws from torch's global random state.

    Args:
        image: (H, W, C) uint8.
        target: (H, W) class ids.
        border: (H, W) weights that move with the target, if any.
        crop: (h, w) of the result; larger than the image, the image is enlarged.
        zoom: range of the enlargement, 1 being the image's own scale; a range of one value leaves
            the aspect ratio alone too.
        context: rows and columns on either side of the crop that may lie beyond the image, for an
            unpadded network.
        horizontal_flip: mirror half of the images.
        vertical_flip: flip half of the images upside down.
        quarter_turns: turn by a multiple of 90 degrees.
        rotate: turn by up to so many degrees either way.
        elastic: standard deviation of U-Net's deformation in pixels, see `displacements`.
        color_strength: 0 leaves the colours; 1 changes brightness, contrast and saturation by up
            to 40 %; 2.5, the most, up to darkness.
        degrade: probability of each of blur, noise and a shadow.

    Returns:
        (C, h, w) float32 in [0, 1], (h, w) int64 and, with `border`, (h, w) float32. Beyond its
        edge the image is mirrored, the target void and the border weight 0.
    """
    size = (target.shape[0], target.shape[1])
    points = _crop_points(size, crop, zoom, context, rotate, quarter_turns)
    if horizontal_flip and torch.rand(()) < 0.5:
        points = points.flip(1)
    if vertical_flip and torch.rand(()) < 0.5:
        points = points.flip(0)
    if elastic:
        points = points + displacements(points, size, elastic)
    near, points = _neighbourhood(size, points)
    pixels = torch.from_numpy(np.ascontiguousarray(image[near])).permute(2, 0, 1).float() / 255
    pixels = _sampled(pixels, points, "reflection")
    pixels = _recolored(pixels, color_strength, degrade)
    labels = _labels_at(torch.from_numpy(np.ascontiguousarray(target[near])), points)
    if border is None:
        return pixels, labels
    weights = torch.from_numpy(np.ascontiguousarray(border[near]))[None]
    return pixels, labels, _sampled(weights, points, "zeros")[0]


def _crop_points(
    size: tuple[int, int],
    crop: tuple[int, int],
    zoom: tuple[float, float],
    context: tuple[int, int],
    rotate: float,
    quarter_turns: bool,
) -> Tensor:
    """(h, w, 2) where the crop's pixels lie in the image, (x, y) in pixels from its top left edge;
    pixel i's centre is at i + 1/2. The crop without its context lies in the image, turns by other
    than a quarter aside."""
    turns = int(torch.randint(4, ())) if quarter_turns else 0
    height, width = size if turns % 2 == 0 else size[::-1]
    inner = crop[0] - 2 * context[0], crop[1] - 2 * context[1]
    # The area of the part is drawn evenly, as RandomResizedCrop does, and its aspect ratio.
    smallest, largest = (
        min(height * width, inner[0] * inner[1] / factor**2) for factor in (zoom[1], zoom[0])
    )
    drawn = _uniform(smallest, largest)
    stretch = 1.0 if zoom[0] == zoom[1] else math.exp(_uniform(math.log(0.9), -math.log(0.9)))
    ratio = inner[1] / inner[0] * stretch
    part_height, part_width = math.sqrt(drawn / ratio), math.sqrt(drawn * ratio)
    fit = min(1.0, height / part_height, width / part_width)
    part_height, part_width = fit * part_height, fit * part_width
    top = _uniform(0.0, height - part_height)
    left = _uniform(0.0, width - part_width)
    if zoom == (1, 1) and fit == 1:  # whole pixels need no interpolation
        top, left = math.floor(top), math.floor(left)
    # From the centre of the part, in pixels of the turned image.
    rows = (torch.arange(crop[0]) + 0.5 - crop[0] / 2) * (part_height / inner[0])
    columns = (torch.arange(crop[1]) + 0.5 - crop[1] / 2) * (part_width / inner[1])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    if rotate:
        angle = math.radians(_uniform(-rotate, rotate))
        x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    x, y = x + left + part_width / 2, y + top + part_height / 2
    for _ in range(turns):  # back to the image before its turns
        x, y, width, height = y, width - x, height, width
    return torch.stack([x, y], dim=-1)


def displacements(points: Tensor, size: tuple[int, int], deviation: float) -> Tensor:
    """U-Net's elastic deformation (section 3.1): displacements drawn on a grid of 3 x 3 over the
    image from a Gaussian, between them bicubic.

    Args:
        points: (h, w, 2) positions (x, y) in the image.
        size: (height, width) of the image.
        deviation: of the Gaussian, in pixels.

    Returns:
        (h, w, 2) displacements (x, y) in pixels.
    """
    drawn = deviation * torch.randn(1, 2, 3, 3)
    # The grid's outer points lie on the centres of the image's outer pixels.
    span = torch.tensor([max(1, size[1] - 1), max(1, size[0] - 1)])
    places = 2 * (points - 0.5) / span - 1
    shift = grid_sample(
        drawn, places[None], mode="bicubic", padding_mode="border", align_corners=True
    )
    return shift[0].permute(1, 2, 0)


def _neighbourhood(size: tuple[int, int], points: Tensor) -> tuple[tuple[slice, slice], Tensor]:
    """The part of the image that the points need, and the points in it."""
    slices = []
    offsets = []
    for axis, length in ((1, size[0]), (0, size[1])):
        values = points[..., axis]
        start = min(max(0, math.floor(float(values.min())) - 2), length - 1)
        stop = max(start + 1, min(length, math.ceil(float(values.max())) + 2))
        # Beyond the edge the image is mirrored: what the mirror shows is needed too.
        start = max(0, min(start, math.floor(2 * length - float(values.max())) - 2))
        stop = min(length, max(stop, math.ceil(-float(values.min())) + 2))
        slices.append(slice(start, stop))
        offsets.append(start)
    return (slices[0], slices[1]), points - torch.tensor([offsets[1], offsets[0]])


def _sampled(values: Tensor, points: Tensor, beyond: str) -> Tensor:
    """(C, h, w): (C, H, W) at the points, bilinear."""
    height, width = values.shape[-2:]
    # grid_sample counts from the image's edges, -1 and 1.
    places = 2 * points / torch.tensor([width, height]) - 1
    return grid_sample(values[None], places[None], padding_mode=beyond, align_corners=False)[0]


def _labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """(h, w) int64: the nearest of (H, W) ids, void beyond their edge."""
    columns, rows = points.floor().long().unbind(-1)
    height, width = labels.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    ids = labels[rows.clamp(0, height - 1), columns.clamp(0, width - 1)].long()
    return ids.where(inside, IGNORE_INDEX)


def _recolored(pixels: Tensor, strength: float, degrade: float) -> Tensor:
    changes = [*_colors(strength, len(pixels)), *_degradations(degrade)]
    if changes:
        pixels = K.AugmentationSequential(*changes, data_keys=["input"])(pixels[None])[0]
    return pixels.clamp(0, 1)


def _colors(strength: float, channels: int) -> list[K.AugmentationBase2D]:
    if not strength:
        return []
    change = 0.4 * strength
    gamma = K.RandomGamma(gamma=(0.7**strength, 1.5**strength), p=0.5)
    if channels == 3:
        return [
            K.ColorJitter(
                brightness=change, contrast=change, saturation=change, hue=0.03 * strength, p=0.9
            ),
            gamma,
        ]
    spread = max(0.0, 1 - change), 1 + change
    return [K.RandomBrightness(spread, p=0.9), K.RandomContrast(spread, p=0.9), gamma]


def _degradations(probability: float) -> list[K.AugmentationBase2D]:
    """What bad light and a bad lens make of an image."""
    if not probability:
        return []
    return [
        K.RandomLinearIllumination(gain=(0.1, 0.5), sign=(-1.0, -1.0), p=probability),
        K.RandomGaussianBlur((5, 5), (0.3, 1.5), p=probability),
        K.RandomGaussianNoise(std=0.03, p=probability),
    ]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))
