"""Joint augmentation of images, targets and weight maps.

All geometric transforms (zoom, flips, rotations, U-Net's elastic deformation) are combined into one
sampling grid, so that an image is interpolated only once and only the part needed for the crop is
processed. Colour augmentation uses kornia.
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
    """Crop and augment an image at random: flips, rotations, deformation and colour changes.

    Uses torch's global random state.

    Args:
        image: (H, W, C) uint8.
        target: (H, W) class ids.
        border: (H, W) weights that are transformed like the target, if any.
        crop: (h, w) of the result; smaller images are enlarged.
        zoom: Range of random scale factors; if both ends are equal, the aspect ratio is preserved.
        context: Rows and columns on either side of the crop that may extend beyond the image, for
            unpadded networks.
        horizontal_flip: Mirror half of the images.
        vertical_flip: Flip half of the images upside down.
        quarter_turns: Rotate by a random multiple of 90 degrees.
        rotate: Maximum random rotation in degrees, in both directions.
        elastic: Standard deviation of U-Net's deformation in pixels; see `displacements`.
        color_strength: 0 does not change colours; 1 changes brightness, contrast and saturation by
            up to 40 %; the maximum of 2.5 can turn images black.
        degrade: Probability of each of blur, noise and a shadow.

    Returns:
        Image (C, h, w) float32 in [0, 1], target (h, w) int64 and, with `border`, weights (h, w)
        float32. Beyond the edges, the image is mirrored, the target is void and the weight is 0.
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
    """Positions (h, w, 2) of the crop's pixels in the image: (x, y) in pixels from its top left
    corner, where pixel i is centred at i + 1/2. Except for rotations by other than 90 degrees, the
    crop without its context is inside the image."""
    turns = int(torch.randint(4, ())) if quarter_turns else 0
    height, width = size if turns % 2 == 0 else size[::-1]
    inner = crop[0] - 2 * context[0], crop[1] - 2 * context[1]
    # Area and aspect ratio of the cropped part are random, as in RandomResizedCrop.
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
    # Relative to the centre of the part, in pixels of the rotated image.
    rows = (torch.arange(crop[0]) + 0.5 - crop[0] / 2) * (part_height / inner[0])
    columns = (torch.arange(crop[1]) + 0.5 - crop[1] / 2) * (part_width / inner[1])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    if rotate:
        angle = math.radians(_uniform(-rotate, rotate))
        x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    x, y = x + left + part_width / 2, y + top + part_height / 2
    for _ in range(turns):  # back to the image before rotation
        x, y, width, height = y, width - x, height, width
    return torch.stack([x, y], dim=-1)


def displacements(points: Tensor, size: tuple[int, int], deviation: float) -> Tensor:
    """U-Net's elastic deformation (section 3.1): Gaussian displacements on a 3 x 3 grid over the
    image, with bicubic interpolation.

    Args:
        points: (h, w, 2) positions (x, y) in the image.
        size: (height, width) of the image.
        deviation: Standard deviation of the Gaussian, in pixels.

    Returns:
        (h, w, 2) displacements (x, y) in pixels.
    """
    drawn = deviation * torch.randn(1, 2, 3, 3)
    # The outer points of the grid are at the centres of the outer pixels of the image.
    span = torch.tensor([max(1, size[1] - 1), max(1, size[0] - 1)])
    places = 2 * (points - 0.5) / span - 1
    shift = grid_sample(
        drawn, places[None], mode="bicubic", padding_mode="border", align_corners=True
    )
    return shift[0].permute(1, 2, 0)


def _neighbourhood(size: tuple[int, int], points: Tensor) -> tuple[tuple[slice, slice], Tensor]:
    """The part of the image that is needed to sample the points, and the points relative to it."""
    slices = []
    offsets = []
    for axis, length in ((1, size[0]), (0, size[1])):
        values = points[..., axis]
        start = min(max(0, math.floor(float(values.min())) - 2), length - 1)
        stop = max(start + 1, min(length, math.ceil(float(values.max())) + 2))
        # Beyond the edge the image is mirrored, so the mirrored pixels are needed as well.
        start = max(0, min(start, math.floor(2 * length - float(values.max())) - 2))
        stop = min(length, max(stop, math.ceil(-float(values.min())) + 2))
        slices.append(slice(start, stop))
        offsets.append(start)
    return (slices[0], slices[1]), points - torch.tensor([offsets[1], offsets[0]])


def _sampled(values: Tensor, points: Tensor, beyond: str) -> Tensor:
    """Sample (C, H, W) at the points bilinearly; returns (C, h, w)."""
    height, width = values.shape[-2:]
    # In grid_sample, the edges of the image are at -1 and 1.
    places = 2 * points / torch.tensor([width, height]) - 1
    return grid_sample(values[None], places[None], padding_mode=beyond, align_corners=False)[0]


def _labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """Sample ids (H, W) at the nearest pixels; returns (h, w) int64, void beyond the edges."""
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
    """Degradations by bad lighting and lenses: shadow, blur and noise."""
    if not probability:
        return []
    return [
        K.RandomLinearIllumination(gain=(0.1, 0.5), sign=(-1.0, -1.0), p=probability),
        K.RandomGaussianBlur((5, 5), (0.3, 1.5), p=probability),
        K.RandomGaussianNoise(std=0.03, p=probability),
    ]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))
