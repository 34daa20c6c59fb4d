"""Losses: cross entropy, weighted by SegNet's class frequencies and U-Net's border weights, and the
Lovász-softmax loss."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, label
from torch import Tensor
from torch.nn.functional import cross_entropy

from segmodels.data.dataset import IGNORE_INDEX

REACH = 6  # in units of sigma: at larger distances, border weights are less than w0 * 2e-8


def class_weights(
    frequencies: NDArray[np.float64], class_names: Sequence[str], balance: float
) -> Tensor:
    """Median-frequency balancing (SegNet, section 4.1): (median frequency / frequency)^balance.

    Args:
        frequencies: (num_classes,) as in `SplitReport.frequencies`; NaN for absent classes, but not
            all NaN.
        class_names: Names of the classes in the order of the ids.
        balance: The exponent; 1 is SegNet's, 0 gives all classes the same weight.

    Returns:
        (num_classes,) float32; 0, with a warning, for classes that do not occur in the training
        images.
    """
    absent = np.isnan(frequencies)
    if absent.any():
        names = [name for name, is_absent in zip(class_names, absent, strict=True) if is_absent]
        warnings.warn(
            f"no training label contains {', '.join(names)} (ids are in the order of classes.txt, "
            f"{IGNORE_INDEX} is void); the network cannot learn these classes",
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

    The weights are weight * exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 and d2 are the distances of a
    pixel to the borders of the nearest and the second nearest cell. The border of a cell consists
    of its pixels next to another cell or background; the edge of the image is not a border. As in
    Figure 3d of the paper, weights are added between cells, not inside them. If two cells touch and
    there is no pixel between them, weights are added to the adjoining border pixels instead.

    Args:
        target: (H, W) class ids.
        weight: w0.
        sigma: Standard deviation in pixels.
        background: Class without cells; None: all classes have cells. Void is not a cell and has
            weight 0.
        cells: (H, W) instance ids, 0 outside cells; None: the connected components of each class.

    Returns:
        (H, W) float32.
    """
    regions = _regions(target, background) if cells is None else _numbered(cells)
    reach = int(np.ceil(REACH * sigma)) + 1
    nearest = np.full((2, *target.shape), np.inf, np.float32)  # d1 and d2
    for number, box in enumerate(find_objects(regions), start=1):
        near = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        border = _outline(regions[near] == number)
        if not border.any():  # the cell fills the whole image
            continue
        distance = distance_transform_edt(~border).astype(np.float32)
        first, second = nearest[0][near], nearest[1][near]
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    weights = weight * np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2))
    between = (regions == 0) | _touching(regions)
    return np.where(between & (target != IGNORE_INDEX), weights, 0).astype(np.float32)


def background_of(class_names: Sequence[str]) -> int | None:
    """The background class: the class named "background", or the first of two classes, else
    None."""
    names = [name.lower() for name in class_names]
    if "background" in names:
        return names.index("background")
    return 0 if len(names) == 2 else None


def _regions(target: NDArray[np.uint8], background: int | None) -> NDArray[np.int32]:
    """(H, W) numbers, from 1, of the 4-connected regions of each class; 0 for background and
    void."""
    regions = np.zeros(target.shape, np.int32)
    for class_id in np.unique(target):
        if class_id not in (background, IGNORE_INDEX):
            own, _ = label(target == class_id)
            regions[own > 0] = own[own > 0] + regions.max()
    return regions


def _numbered(cells: NDArray[np.integer]) -> NDArray[np.int32]:
    """Renumber instance ids to 1, 2, ...; 0 is unchanged."""
    ids, numbers = np.unique(cells, return_inverse=True)
    numbers = numbers.reshape(cells.shape).astype(np.int32)
    return numbers if ids[0] == 0 else numbers + 1


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of the region with a 4-neighbour outside it; the edge of the array does not
    count."""
    return region & ~binary_erosion(region, border_value=1)


def _touching(regions: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels of a cell that have a 4-neighbour in another cell."""
    touching = np.zeros(regions.shape, bool)
    for axis in (0, 1):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        behind = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        meet = (regions[before] != regions[behind]) & (regions[before] > 0) & (regions[behind] > 0)
        touching[before] |= meet
        touching[behind] |= meet
    return touching


def total_weight(target: Tensor, weights: Tensor, border: Tensor | None = None) -> Tensor:
    """Sum of the pixel weights, the divisor in `weighted_cross_entropy`."""
    return _pixel_weights(target, weights, border).sum()


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, border: Tensor | None = None
) -> Tensor:
    """Weighted mean over the pixels of -log softmax (U-Net, section 3, equation 1).

    Args:
        logits: (N, num_classes, H, W) float.
        target: (N, H, W) int64 class ids; void pixels are ignored.
        weights: (num_classes,) class weights.
        border: (N, H, W) weights that are added to the class weights; None: none.

    Returns:
        Scalar; NaN if the sum of the weights is 0.
    """
    if border is None:
        return cross_entropy(logits, target, weights, ignore_index=IGNORE_INDEX)
    pixel_weights = _pixel_weights(target, weights, border)
    losses = cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
    return (losses * pixel_weights).sum() / pixel_weights.sum()


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-softmax: a convex extension of 1 - mean IoU to probabilities.

    Berman, Rannen Triki and Blaschko, CVPR 2018, equations 8 and 11,
    https://arxiv.org/abs/1705.08790, over the classes in the target and all images of the batch. If
    all probabilities are 0 or 1, it equals 1 - mean IoU. Cross entropy, a mean over pixels, is
    hardly affected by thin classes, while IoU weights all classes equally.

    Args:
        logits: (N, num_classes, H, W) float.
        target: (N, H, W) int64 class ids.

    Returns:
        Scalar in [0, 1]; 0 if all pixels are void.
    """
    known = target != IGNORE_INDEX
    target = target[known]
    classes = target.unique()[:, None]
    if not len(classes):
        return 0.0 * logits.sum()
    probabilities = logits.softmax(1).movedim(1, 0)[:, known]  # (num_classes, pixels)
    is_class = target == classes  # (classes, pixels)
    errors = (is_class.float() - probabilities[classes[:, 0]]).abs()
    # Algorithm 1: each error, largest first, is multiplied by the increase of 1 - intersection /
    # union when that pixel becomes wrong: pixels of the class leave the intersection, others join
    # the union.
    errors, order = errors.sort(dim=1, descending=True)
    is_class = is_class.gather(1, order)
    size = is_class.sum(1, keepdim=True)
    intersection, union = size - is_class.cumsum(1), size + (~is_class).cumsum(1)
    growth = torch.where(is_class, 1.0, intersection / (union - 1)) / union
    return (errors * growth).sum(1).mean()


def _pixel_weights(target: Tensor, weights: Tensor, border: Tensor | None) -> Tensor:
    known = target != IGNORE_INDEX
    pixel_weights = weights[target.where(known, 0)]
    if border is not None:
        pixel_weights = pixel_weights + border
    return pixel_weights * known
