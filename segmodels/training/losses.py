"""The loss: cross entropy, weighted by SegNet's class frequencies and U-Net's borders; the
Lovász-softmax loss beside it."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, label
from torch import Tensor
from torch.nn.functional import cross_entropy

from segmodels.data.dataset import IGNORE_INDEX

REACH = 6  # sigmas: farther from a border its weight is less than w0 * 2e-8


def class_weights(
    frequencies: NDArray[np.float64], class_names: Sequence[str], balance: float
) -> Tensor:
    """Median-frequency balancing (SegNet, section 4.1): (median frequency / frequency)^balance.

    Args:
        frequencies: (num_classes,) as `Survey.frequencies` has them, NaN for absent classes; not
            all are NaN.
        class_names: in the order of the ids.
        balance: the exponent; 1 is SegNet's, 0 gives every class the same weight.

    Returns:
        (num_classes,) float32; 0, with a warning, for a class that no training image has.
    """
    absent = np.isnan(frequencies)
    if absent.any():
        names = [name for name, is_absent in zip(class_names, absent, strict=True) if is_absent]
        warnings.warn(
            f"no training label has a pixel of {', '.join(names)} (ids in the order of "
            f"classes.txt, {IGNORE_INDEX} is void); the network cannot learn them",
            stacklevel=2,
        )
    weights = (np.nanmedian(frequencies) / frequencies) ** balance
    return torch.tensor(np.where(absent, 0.0, weights), dtype=torch.float32)


def border_weights(
    target: NDArray[np.uint8],
    *,
    weight: float,
    sigma: float,
    background: int | None,
    cells: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """U-Net's weights of the background between cells (section 3, equation 2).

    weight * exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 being a pixel's distances to the borders
    of the nearest and of the second nearest cell; a cell's border are its pixels beside another
    cell or background, the edge of the image is none. As in the paper's Figure 3d the weight is
    added between cells and not inside them. Cells that touch have no pixel between them: there
    the borders where they meet take its place.

    Args:
        target: (H, W) class ids.
        weight: w0.
        sigma: in pixels.
        background: the class whose regions are no cells; None: every class has cells. Void is no
            cell, and its weight is 0.
        cells: (H, W) instance ids, 0 outside cells; None: the connected regions of each class.

    Returns:
        (H, W) float32.
    """
    regions = _regions(target, background) if cells is None else _numbered(cells)
    reach = int(np.ceil(REACH * sigma)) + 1
    nearest = np.full((2, *target.shape), np.inf, np.float32)  # d1 and d2
    for number, box in enumerate(find_objects(regions), start=1):
        near = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        border = _outline(regions[near] == number)
        if not border.any():  # the cell is all that there is
            continue
        distance = distance_transform_edt(~border).astype(np.float32)
        first, second = nearest[0][near], nearest[1][near]
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    weights = weight * np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2))
    between = (regions == 0) | _touching(regions)
    return np.where(between & (target != IGNORE_INDEX), weights, 0).astype(np.float32)


def background_of(class_names: Sequence[str]) -> int | None:
    """The class between the objects: the one named background, or of two classes the first; None
    if there is none."""
    names = [name.lower() for name in class_names]
    if "background" in names:
        return names.index("background")
    return 0 if len(names) == 2 else None


def _regions(target: NDArray[np.uint8], background: int | None) -> NDArray[np.int32]:
    """(H, W) numbers from 1 of the connected regions (of four neighbours) of equal class, 0 for
    background and void."""
    regions = np.zeros(target.shape, np.int32)
    for class_id in np.unique(target):
        if class_id not in (background, IGNORE_INDEX):
            own, _ = label(target == class_id)
            regions[own > 0] = own[own > 0] + regions.max()
    return regions


def _numbered(cells: NDArray[np.integer]) -> NDArray[np.int32]:
    """Instance ids as 1, 2, ..., 0 where they are 0."""
    ids, numbers = np.unique(cells, return_inverse=True)
    numbers = numbers.reshape(cells.shape).astype(np.int32)
    return numbers if ids[0] == 0 else numbers + 1


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region's pixels with a neighbour, of four, outside it; the edge of the array is none."""
    return region & ~binary_erosion(region, border_value=1)


def _touching(regions: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels of a cell with a pixel of another cell beside them, of four."""
    touching = np.zeros(regions.shape, bool)
    for axis in (0, 1):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        behind = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        meet = (regions[before] != regions[behind]) & (regions[before] > 0) & (regions[behind] > 0)
        touching[before] |= meet
        touching[behind] |= meet
    return touching


def total_weight(target: Tensor, weights: Tensor, border: Tensor | None = None) -> Tensor:
    """() Sum of the pixels' weights, the divisor of `weighted_cross_entropy`."""
    return _pixel_weights(target, weights, border).sum()


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, border: Tensor | None = None
) -> Tensor:
    """Mean over the pixels of -log softmax (U-Net, section 3, equation 1), each weighted.

    Args:
        logits: (N, num_classes, H, W) float.
        target: (N, H, W) int64 class ids; void pixels have no weight.
        weights: (num_classes,) of the classes.
        border: (N, H, W), added to the weight of a pixel's class; None: nothing.

    Returns:
        () float; NaN if no pixel has a weight.
    """
    if border is None:
        return cross_entropy(logits, target, weights, ignore_index=IGNORE_INDEX)
    of_pixels = _pixel_weights(target, weights, border)
    losses = cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
    return (losses * of_pixels).sum() / of_pixels.sum()


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-softmax: a convex extension of 1 - mean IoU to probabilities.

    Berman, Rannen Triki and Blaschko, CVPR 2018, equations 8 and 11,
    https://arxiv.org/abs/1705.08790; over the classes in the target and all images together. Where
    every probability is 0 or 1 it is 1 - mean IoU itself. Cross entropy, a mean over pixels, hardly
    sees a thin class; IoU counts all classes alike.

    Args:
        logits: (N, num_classes, H, W) float.
        target: (N, H, W) int64 class ids.

    Returns:
        () float in [0, 1]; 0 where all pixels are void.
    """
    known = target != IGNORE_INDEX
    target = target[known]
    classes = target.unique()[:, None]
    if not len(classes):
        return 0.0 * logits.sum()
    probabilities = logits.softmax(1).movedim(1, 0)[:, known]  # (num_classes, pixels)
    is_class = target == classes  # (classes, pixels)
    errors = (is_class.float() - probabilities[classes[:, 0]]).abs()
    # Algorithm 1: the errors, largest first, each times what 1 - intersection / union grows by once
    # that pixel is wrong too: one of the class leaves the intersection, another joins the union.
    errors, order = errors.sort(dim=1, descending=True)
    is_class = is_class.gather(1, order)
    size = is_class.sum(1, keepdim=True)
    intersection, union = size - is_class.cumsum(1), size + (~is_class).cumsum(1)
    growth = torch.where(is_class, 1.0, intersection / (union - 1)) / union
    return (errors * growth).sum(1).mean()


def _pixel_weights(target: Tensor, weights: Tensor, border: Tensor | None) -> Tensor:
    known = target != IGNORE_INDEX
    of_pixels = weights[target.where(known, 0)]
    if border is not None:
        of_pixels = of_pixels + border
    return of_pixels * known
