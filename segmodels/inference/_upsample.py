"""The class map at the picture's own size, from probabilities at the size the network saw.

What comes out is the argmax of the bilinearly interpolated probabilities. It is not computed for
every pixel: between four neighbours of one class that class wins everywhere, since a weighted mean
keeps the order. Only where neighbours differ are all the classes interpolated.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

CHUNK = 1 << 16  # pixels whose classes are interpolated at once: they stay in the cache


class FullSize:
    """A class map (H, W) in the making, from probabilities (num_classes, h, w) that come part by
    part, h <= H and w <= W."""

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
        """Take a part's probabilities: (num_classes, r, c) float32, its own rows and columns and,
        where the working size has them, one more of each behind."""
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
        """All the pixels of the cells, (n, 2) row and column within the part, whose upper left
        corner lies at (top, left) of the working size."""
        num_classes, height, width = probabilities.shape
        flat = probabilities.reshape(num_classes, -1)
        # Cells of as many pixels together: those at the edges have more than the others, or fewer.
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
        """(H, W) in [0, 1], the winning probability."""
        if self.working == self.full:
            return self.highest.clamp(0, 1).numpy()
        confidence = interpolate(self.highest[None, None], size=self.full, mode="bilinear")[0, 0]
        for pixels, _, highest in self.mixed:
            confidence.view(-1)[pixels] = highest
        return confidence.clamp_(0, 1).numpy()


class _Axis:
    """Where the pixels of one axis lie among those of the working size.

    cell: (size,) the pixel of the working size before each; weight: (size,) of the one behind it.
    """

    def __init__(self, working: int, size: int) -> None:
        position = ((torch.arange(size) + 0.5) * working / size - 0.5).clamp(0, working - 1)
        self.cell = position.long()
        self.weight = position - self.cell
        self.count = torch.bincount(self.cell, minlength=working)
        self.first = self.count.cumsum(0) - self.count

    def pixels(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels of each of the cells, (n,), as (k, n), where k is the most that a cell has:
        their places on the axis, and their weights. Of a cell with fewer the last comes again."""
        count = self.count[cells]
        number = torch.arange(int(count.max()))[:, None]
        place = self.first[cells] + torch.minimum(number, count - 1)
        return place, self.weight[place]


def _best(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """(num_classes, ...) -> the highest and, uint8, whose it is: the first of equal ones. What
    `probabilities.max(0)` finds, four times as fast: these operations of numpy are vectorised."""
    values = probabilities.numpy()
    highest, winners = values[0].copy(), np.zeros(values.shape[1:], np.uint8)
    higher = np.empty(winners.shape, np.bool_)
    for number, value in enumerate(values[1:], 1):
        np.greater(value, highest, out=higher)
        np.maximum(highest, value, out=highest)
        np.maximum(winners, higher.view(np.uint8) * np.uint8(number), out=winners)
    return torch.from_numpy(highest), torch.from_numpy(winners)


def _shifted(values: Tensor, axis: int) -> Tensor:
    """Each value's neighbour behind it on the axis; the last one's is itself."""
    last = values.shape[axis] - 1
    return torch.cat([values.narrow(axis, 1, last), values.narrow(axis, last, 1)], axis)
