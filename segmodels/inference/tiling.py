"""Tiling of large images, with context around each tile so that there are no seams."""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmodels.models.base import SegmentationModel

STRIDE = 32  # tiles start at multiples of it, so that pooling windows are those of the whole image


def tiles(height: int, width: int, tile_size: int, context: int) -> Iterator[tuple[slice, slice]]:
    """Divide an image into tiles.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        tile_size: An image with at most tile_size x tile_size pixels is a single tile. The tiles of
            larger images have at most this size including their context.
        context: Pixels of context on each side of a tile.

    Yields:
        The rows and columns of each tile, without its context.
    """
    if height * width <= tile_size**2:
        yield slice(0, height), slice(0, width)
        return
    core = (tile_size - 2 * context) // STRIDE * STRIDE
    for top in range(0, height, core):
        for left in range(0, width, core):
            yield slice(top, min(top + core, height)), slice(left, min(left + core, width))


def smallest_tile_size(context: int) -> int:
    """The `tile_size` used when memory is short; smaller tiles would recompute too much context."""
    return 2 * context + 8 * STRIDE


def with_context(
    model: SegmentationModel, pixels: Tensor, rows: slice, columns: slice
) -> tuple[Tensor, tuple[slice, slice]]:
    """Extract the input that a network needs to segment a part of an image.

    Args:
        model: The network.
        pixels: (N, C, H, W), the whole image.
        rows: Rows of the part.
        columns: Columns of the part.

    Returns:
        The part of `pixels` with its context, and the rows and columns of the logits that belong to
        the part.
    """
    if not model.keeps_size:
        return _mirrored_region(model, pixels, rows, columns)
    context = model.tile_context
    top, left = max(0, rows.start - context), max(0, columns.start - context)
    region = pixels[..., top : rows.stop + context, left : columns.stop + context]
    inside = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    return region, inside


def _mirrored_region(
    model: SegmentationModel, pixels: Tensor, rows: slice, columns: slice
) -> tuple[Tensor, tuple[slice, slice]]:
    """U-Net's overlap-tile strategy (section 2, Figure 2): unpadded convolutions consume a margin,
    which is filled by mirroring beyond the edges of the image."""
    for axis, part in ((-2, rows), (-1, columns)):
        size, margin = model.input_size_for(part.stop - part.start)
        start = part.start - margin
        around = torch.arange(start, start + size, device=pixels.device)
        indices = mirrored(around, pixels.shape[axis])
        pixels = pixels.index_select(axis, indices)
    return pixels, (slice(rows.stop - rows.start), slice(columns.stop - columns.start))


def mirrored(indices: Tensor, size: int) -> Tensor:
    """Map arbitrary indices to 0..size - 1 by reflection at the first and last pixel."""
    if size == 1:
        return torch.zeros_like(indices)
    period = 2 * (size - 1)
    indices = indices % period
    return torch.minimum(indices, period - indices)
