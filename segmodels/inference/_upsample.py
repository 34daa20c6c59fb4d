"""Upsampling of the class map from the working size of the network to the size of the image.

The result is the argmax of the bilinearly interpolated probabilities, but most pixels need no
interpolation: between four neighbours of the same class, that class has the highest probability
everywhere, since a weighted mean preserves the order. All classes are interpolated only between
neighbours of different classes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

CHUNK = 1 << 16  # number of pixels interpolated at a time, so that they fit into the cache


class FullSize:
    """Builds a class map (H, W) from probabilities (num_classes, h, w) that are added in parts.

    Args:
        working: Working size (h, w).
        full: Size of the image (H, W), with h <= H and w <= W.
    """

    def __init__(self, working: tuple[int, int], full: tuple[int, int]) -> None:
        if working[0] > full[0] or working[1] > full[1]:
            raise ValueError(f"the working size must be at most {full}, got {working}")
        self.working, self.full = working, full
        self.winners = torch.empty(working, dtype=torch.uint8)
        self.highest = torch.empty(working, dtype=torch.float32)
        self.rows = _Axis(working[0], full[0])
        self.columns = _Axis(working[1], full[1])
        self.mixed: list[tuple[Tensor, Tensor, Tensor]] = []  # pixel, class, probability

    def fill(self, probabilities: Tensor, rows: slice, columns: slice) -> None:
        """Add a part of the probabilities.

        Args:
            probabilities: (num_classes, r, c) float32: the rows and columns of the part, plus the
                next row and column, unless the part ends at the edge.
            rows: Rows of the part, at the working size.
            columns: Columns of the part, at the working size.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        highest, winners = _best(probabilities)
        self.highest[rows, columns] = highest[:height, :width]
        self.winners[rows, columns] = winners[:height, :width]
        if self.working == self.full:
            return
        right, below = _shifted(winners, 1), _shifted(winners, 0)
        same = (winners == right) & (winners == below) & (winners == _shifted(right, 0))
        cells = (~same[:height, :width]).nonzero()
        if len(cells):
            self._interpolate(probabilities, cells, rows.start, columns.start)

    def _interpolate(self, probabilities: Tensor, cells: Tensor, top: int, left: int) -> None:
        """Interpolate the pixels inside the given cells.

        Args:
            probabilities: (num_classes, r, c), as in `fill`.
            cells: (n, 2), row and column within the part of each cell's upper left corner.
            top: First row of the part, at the working size.
            left: First column of the part, at the working size.
        """
        num_classes, height, width = probabilities.shape
        flat = probabilities.reshape(num_classes, -1)
        # Cells with similar numbers of pixels are processed together; those at the edges differ.
        area = self.rows.count[cells[:, 0] + top] * self.columns.count[cells[:, 1] + left]
        each = max(1, CHUNK * math.prod(self.working) // math.prod(self.full))
        for some in cells[area.argsort()].split(each):
            row, column = some.unbind(1)
            y, down_weight = self.rows.pixels(row + top)  # (k, n)
            x, across_weight = self.columns.pixels(column + left)
            down = ((row + 1).clamp(max=height - 1) - row) * width
            across = (column + 1).clamp(max=width - 1) - column
            here = row * width + column
            corners = (here, here + down, here + across, here + down + across)
            upper_left, lower_left, upper_right, lower_right = (
                flat.index_select(1, corner)[:, None] for corner in corners
            )
            leftmost = torch.lerp(upper_left, lower_left, down_weight)  # (num_classes, k, n)
            step = torch.lerp(upper_right, lower_right, down_weight) - leftmost
            values = torch.addcmul(leftmost[:, :, None], step[:, :, None], across_weight)
            highest, winners = _best(values)
            self.mixed.append((y[:, None] * self.full[1] + x, winners, highest))

    def class_map(self) -> NDArray[np.uint8]:
        """(H, W) class ids."""
        if self.working == self.full:
            return self.winners.numpy()
        wide = np.take(self.winners.numpy(), self.columns.cell.numpy(), axis=1)
        class_map = np.take(wide, self.rows.cell.numpy(), axis=0)
        for pixels, winners, _ in self.mixed:
            torch.from_numpy(class_map).view(-1)[pixels] = winners
        return class_map

    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 in [0, 1]: the highest probability of each pixel."""
        if self.working == self.full:
            return self.highest.clamp(0, 1).numpy()
        confidence = interpolate(self.highest[None, None], size=self.full, mode="bilinear")[0, 0]
        for pixels, _, highest in self.mixed:
            confidence.view(-1)[pixels] = highest
        return confidence.clamp_(0, 1).numpy()


class _Axis:
    """Positions of the image's pixels along an axis, relative to those of the working size.

    A cell is the interval between two neighbouring pixels of the working size.

    Attributes:
        cell: (size,) Index of each pixel's cell, which is that of the preceding pixel of the
            working size.
        weight: (size,) Interpolation weight of the following pixel of the working size.
        count: (working,) Number of pixels in each cell.
        first: (working,) Index of the first pixel in each cell.
    """

    def __init__(self, working: int, size: int) -> None:
        position = ((torch.arange(size) + 0.5) * working / size - 0.5).clamp(0, working - 1)
        self.cell = position.long()
        self.weight = position - self.cell
        self.count = torch.bincount(self.cell, minlength=working)
        self.first = self.count.cumsum(0) - self.count

    def pixels(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and weights, (k, n) each, of the pixels in `cells`, (n,). k is the largest number
        of pixels in a cell; in cells with fewer pixels, the last one is repeated."""
        count = self.count[cells]
        number = torch.arange(int(count.max()))[:, None]
        place = self.first[cells] + torch.minimum(number, count - 1)
        return place, self.weight[place]


def _best(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of (num_classes, ...) probabilities, and its uint8 index; the first if several
    are equal. Four times as fast as `probabilities.max(0)`, since NumPy vectorises these
    operations."""
    values = probabilities.numpy()
    highest, winners = values[0].copy(), np.zeros(values.shape[1:], np.uint8)
    higher = np.empty(winners.shape, np.bool_)
    for number, value in enumerate(values[1:], 1):
        np.greater(value, highest, out=higher)
        np.maximum(highest, value, out=highest)
        np.maximum(winners, higher.view(np.uint8) * np.uint8(number), out=winners)
    return torch.from_numpy(highest), torch.from_numpy(winners)


def _shifted(values: Tensor, axis: int) -> Tensor:
    """Shift the values by one along the axis, repeating the last one."""
    last = values.shape[axis] - 1
    return torch.cat([values.narrow(axis, 1, last), values.narrow(axis, last, 1)], axis)
