"""The class map at the image's own size, from probabilities at the network's working size.

It is the argmax of the bilinearly interpolated probabilities, without interpolating them at every
pixel: between four neighbours of the same class, that class has the highest probability everywhere,
since a weighted mean preserves the order. Only between different classes are all of them
interpolated.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

CHUNK = 1 << 16  # pixels interpolated at once, so that they stay in the cache


class FullSize:
    """Builds a class map (H, W) from probabilities (num_classes, h, w), given part by part, with
    h <= H and w <= W."""

    def __init__(self, working: tuple[int, int], full: tuple[int, int]) -> None:
        if working[0] > full[0] or working[1] > full[1]:
            raise ValueError(f"the working size {working} must not be larger than {full}")
        self.working, self.full = working, full
        self.winners = torch.empty(working, dtype=torch.uint8)
        self.highest = torch.empty(working, dtype=torch.float32)
        self.rows = _Axis(working[0], full[0])
        self.columns = _Axis(working[1], full[1])
        self.mixed: list[tuple[Tensor, Tensor, Tensor]] = []  # pixel, class, probability

    def fill(self, probabilities: Tensor, rows: slice, columns: slice) -> None:
        """Add a part.

        Args:
            probabilities: (num_classes, r, c) float32: the part's rows and columns and, except at
                the end of the working size, one more of each.
            rows: Rows of the part.
            columns: Columns of the part.
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
        """Interpolate all pixels of `cells`, (n, 2) row and column within the part whose upper left
        corner is at (top, left) of the working size."""
        num_classes, height, width = probabilities.shape
        flat = probabilities.reshape(num_classes, -1)
        # Cells with equally many pixels are processed together; those at the edges differ.
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
        """(H, W) float32 in [0, 1], the highest probability."""
        if self.working == self.full:
            return self.highest.clamp(0, 1).numpy()
        confidence = interpolate(self.highest[None, None], size=self.full, mode="bilinear")[0, 0]
        for pixels, _, highest in self.mixed:
            confidence.view(-1)[pixels] = highest
        return confidence.clamp_(0, 1).numpy()


class _Axis:
    """The positions of an axis' pixels among those of the working size.

    Attributes:
        cell: (size,) The preceding pixel of the working size.
        weight: (size,) The weight of the pixel after that.
        count: (working,) How many pixels each cell has.
        first: (working,) The first of them.
    """

    def __init__(self, working: int, size: int) -> None:
        position = ((torch.arange(size) + 0.5) * working / size - 0.5).clamp(0, working - 1)
        self.cell = position.long()
        self.weight = position - self.cell
        self.count = torch.bincount(self.cell, minlength=working)
        self.first = self.count.cumsum(0) - self.count

    def pixels(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The positions and weights, each (k, n), of the pixels of `cells`, (n,). k is the largest
        number of pixels in a cell; in cells with fewer the last is repeated."""
        count = self.count[cells]
        number = torch.arange(int(count.max()))[:, None]
        place = self.first[cells] + torch.minimum(number, count - 1)
        return place, self.weight[place]


def _best(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """`probabilities.max(0)` of (num_classes, ...): values and uint8 indices, the first of equal
    ones. Four times as fast, since NumPy vectorises these operations."""
    values = probabilities.numpy()
    highest, winners = values[0].copy(), np.zeros(values.shape[1:], np.uint8)
    higher = np.empty(winners.shape, np.bool_)
    for number, value in enumerate(values[1:], 1):
        np.greater(value, highest, out=higher)
        np.maximum(highest, value, out=highest)
        np.maximum(winners, higher.view(np.uint8) * np.uint8(number), out=winners)
    return torch.from_numpy(highest), torch.from_numpy(winners)


def _shifted(values: Tensor, axis: int) -> Tensor:
    """The values shifted by one along the axis; the last is repeated."""
    last = values.shape[axis] - 1
    return torch.cat([values.narrow(axis, 1, last), values.narrow(axis, last, 1)], axis)
