"""The class map at the picture's own size, from probabilities at the size the network saw.

What comes out is the argmax of the bilinearly interpolated probabilities. It is not computed for
every pixel: between four neighbours of one class that class wins everywhere, since a weighted mean
keeps the order. Only where neighbours differ are all the classes interpolated.
"""

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
        highest, winners = probabilities.max(0)
        self.highest[rows, columns] = highest[:height, :width]
        self.winners[rows, columns] = winners[:height, :width].byte()
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
        cell, y = self.rows.pixels(cells[:, 0] + top)  # a line of pixels in a cell
        row, column = cells[cell, 0], cells[cell, 1]
        down = (row + 1).clamp(max=height - 1) - row
        across = (column + 1).clamp(max=width - 1) - column
        corner, weight = row * width + column, self.rows.weight[y]
        leftmost = torch.lerp(
            flat.index_select(1, corner), flat.index_select(1, corner + down * width), weight
        )
        corner += across
        step = (
            torch.lerp(
                flat.index_select(1, corner), flat.index_select(1, corner + down * width), weight
            )
            - leftmost
        )
        line, x = self.columns.pixels(column + left)
        for start in range(0, len(line), CHUNK):
            some, xs = line[start : start + CHUNK], x[start : start + CHUNK]
            values = torch.addcmul(
                leftmost.index_select(1, some), step.index_select(1, some), self.columns.weight[xs]
            )
            highest, winners = values.max(0)
            self.mixed.append((y[some] * self.full[1] + xs, winners.byte(), highest))

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
        """Every pixel of every one of the cells, (n,): which of the n it belongs to, and where on
        the axis it is."""
        count = self.count[cells]
        owner = torch.repeat_interleave(count)
        place = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
        return owner, self.first[cells][owner] + place


def _shifted(values: Tensor, axis: int) -> Tensor:
    """Each value's neighbour behind it on the axis; the last one's is itself."""
    last = values.shape[axis] - 1
    return torch.cat([values.narrow(axis, 1, last), values.narrow(axis, last, 1)], axis)
