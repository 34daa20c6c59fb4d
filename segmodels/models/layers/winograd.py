"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), as in Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.3, with their names: a
tile of 6 x 6 pixels d gives 4 x 4 outputs, inverse(filter(g) * data(d))."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from segmodels.utils.parallel import for_each

MIN_CHANNELS = 64  # with fewer, the transforms cost more than the products save
# Tiles computed at once: the larger the filters, the more tiles are to share a pass over them; the
# fewer, the better their expansion stays in the cache.
MIN_TILES, TILES, PAIRS_PER_TILE = 64, 256, 256
KERNELS = 1 << 14  # transformed at once
PADDINGS: dict[Any, int] = {(0, 0): 0, "valid": 0, (1, 1): 1, "same": 1}  # as Conv2d has them

# One-dimensional data (6 -> 6), filter (3 -> 6) and inverse transforms (6 -> 4).
_DATA = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_FILTER = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_INVERSE = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    dtype=torch.float64,
)


def _transform_2d(matrix: Tensor, x: Tensor) -> Tensor:
    """Apply a transform (m, k) to the rows and the columns of k x k values.

    (k, k, ...) or (k * k, ...) -> (m * m, n). Rows and columns are swapped; a second transform
    swaps them back.
    """
    new, old = matrix.shape
    of_columns = torch.bmm(matrix.expand(old, new, old), x.reshape(old, old, -1))
    of_rows = torch.bmm(matrix.expand(new, new, old), of_columns.transpose(0, 1))
    return of_rows.view(new * new, -1)


def _laid_out(kernels: Tensor) -> Tensor:
    """(out, in, 3, 3) -> (9, in, out), column by column, since `_transform_2d` swaps rows and
    columns of the data."""
    return kernels.permute(3, 2, 1, 0).flatten(0, 1).contiguous()


@contextmanager
def _filters(kernels: Tensor) -> Iterator[Tensor]:
    """The filter transform of kernels that are laid out, (36, in, out), until the context ends.

    It takes four times the memory of the kernels, but a few percent of a convolution's time:
    computed for each call in memory that all layers share, it need not be kept.
    """
    inputs, outputs = kernels.shape[1:]
    transform = torch.kron(_FILTER, _FILTER).to(kernels)
    columns = kernels.view(9, -1)
    with _scratch(36 * inputs * outputs, kernels.dtype) as memory:
        found = memory.view(36, -1)

        def compute(start: int) -> None:
            part = slice(start, start + KERNELS)
            torch.mm(transform, columns[:, part], out=found[:, part])

        for_each(compute, range(0, inputs * outputs, KERNELS))
        yield found.view(36, inputs, outputs)


_idle: deque[Tensor] = deque()  # scratch memory, in bytes, that no call uses at the moment


@contextmanager
def _scratch(size: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """`size` values of memory on the CPU. It is used again, so that the system need not map and
    zero it for every call; there is as much as calls at the same time have needed."""
    count = size * dtype.itemsize
    try:
        memory = _idle.pop()
    except IndexError:
        memory = None
    if memory is None or len(memory) < count:
        with torch.inference_mode(False):  # else it could not be used outside of that mode
            memory = torch.empty(count, dtype=torch.uint8)
    try:
        yield memory[:count].view(dtype)
    finally:
        _idle.append(memory)


class _Tiles:
    """The division of `height` x `width` outputs into `down` x `across` tiles."""

    def __init__(self, x: Tensor, padding: int) -> None:
        self.padding = padding
        self.height, self.width = (side + 2 * padding - 2 for side in x.shape[2:])
        self.down, self.across = -(-self.height // 4), -(-self.width // 4)
        self.data, self.inverse = _DATA.to(x), _INVERSE.to(x)

    def parts(self, count: int, pairs: int) -> Iterator[tuple[slice, int, int]]:
        """Parts of a batch of `count` images, as many for each thread: (images, first row of tiles,
        row after the last). `pairs`: input times output channels."""
        threads = torch.get_num_threads()
        tiles = min(TILES, max(MIN_TILES, pairs // PAIRS_PER_TILE))
        total = count * self.down
        rounds = -(-total * self.across // (tiles * threads))
        rows = -(-total // (rounds * threads))
        images = max(1, rows // self.down)
        for first in range(0, count, images):
            for top in range(0, self.down, rows):
                yield slice(first, first + images), top, min(top + rows, self.down)

    def expanded(self, x: Tensor, top: int, end: int) -> Tensor:
        """The data transform of rows of tiles, (n, H, W, in) -> (36, tiles, in)."""
        first, last = 4 * top - self.padding, 4 * end + 2 - self.padding
        right = 4 * self.across + 2 - self.padding - x.shape[2]
        zeros = (0, 0, self.padding, right, max(0, -first), max(0, last - x.shape[1]))
        pixels = pad(x[:, max(0, first) : last], zeros)
        tiles = pixels.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
        return _transform_2d(self.data, tiles).view(36, -1, x.shape[3])

    def convolved(self, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """(N, in, H, W) and kernels that are laid out -> (N, out, height, width)."""
        with _filters(kernels) as filters:
            return self._convolved(x, filters, bias)

    def _convolved(self, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        outputs, layout = filters.shape[2], torch.channels_last
        shape = len(x), outputs, 4 * self.down, 4 * self.across
        found = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
        x, rows = x.permute(0, 2, 3, 1), found.permute(0, 2, 3, 1)
        zero = x.new_zeros(1) if bias is None else bias

        def convolve(part: tuple[slice, int, int]) -> None:
            images, top, end = part
            products = torch.bmm(self.expanded(x[images], top, end), filters)
            out = rows[images, 4 * top : 4 * end].view(-1, end - top, 4, self.across, 4, outputs)
            sums = _transform_2d(self.inverse, products).view(
                4, 4, len(out), end - top, self.across, outputs
            )
            torch.add(sums.permute(2, 3, 0, 4, 1, 5), zero, out=out)

        for_each(convolve, self.parts(len(x), filters.shape[1] * outputs))
        if (self.height, self.width) == found.shape[2:]:
            return found
        return found[..., : self.height, : self.width].contiguous(memory_format=layout)

    def kernel_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        """(N, in, H, W) and the gradient of the outputs (N, out, height, width) -> gradient of the
        kernels (out, in, 3, 3)."""
        x, outputs = x.permute(0, 2, 3, 1), gradient.shape[1]
        below, beside = 4 * self.down - self.height, 4 * self.across - self.width
        whole = pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, beside, 0, below))
        found = x.new_zeros(36, x.shape[3], outputs)
        for images, top, end in self.parts(len(x), x.shape[3] * outputs):
            data = self.expanded(x[images], top, end)
            sums = whole[images, 4 * top : 4 * end]
            sums = sums.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(2, 4, 0, 1, 3, 5)
            products = _transform_2d(self.inverse.T, sums).view(36, -1, outputs)
            found.baddbmm_(data.transpose(1, 2), products)
        kernels = _transform_2d(_FILTER.to(x).T, found)
        return kernels.view(3, 3, x.shape[3], outputs).permute(3, 2, 0, 1)


class Winograd(nn.Module):
    """A convolution for inference, of the kind that `is_faster` accepts. Outputs agree within 1e-4
    of their standard deviation. `weight` is (9, in, out)."""

    min_pairs = 64 * 128  # input times output channels from which it saves time
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.padding = PADDINGS[layer.padding]
        bias = None if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("weight", _laid_out(layer.weight.detach()))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) float32 -> (N, out, H, W), or (N, out, H - 2, W - 2) without padding; in
        channels_last."""
        return _Tiles(x, self.padding).convolved(x, self.weight, self.bias)


class WinogradConv2d(nn.Conv2d):
    """A convolution for training, of the kind that `is_faster` accepts. It shares the parameters of
    `layer` and computes the gradients with as few multiplications as the outputs."""

    min_pairs = 64 * 64  # fewer than `Winograd`'s, since direct gradients are slower

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            3,
            padding=PADDINGS[layer.padding],
            bias=layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `Winograd.forward`."""
        found: Tensor = _Convolution.apply(x, self.weight, self.bias, PADDINGS[self.padding])
        return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _Tiles(x, padding).convolved(x, _laid_out(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:  # a convolution with the kernels rotated by 180 degrees
            turned = _laid_out(weight.flip(2, 3).transpose(0, 1))
            of_x = _Tiles(gradient, 2 - ctx.padding).convolved(gradient, turned, None)
        if ctx.needs_input_grad[1]:
            of_weight = _Tiles(x, ctx.padding).kernel_gradient(x, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def is_faster(layer: nn.Module, min_pairs: int) -> bool:
    """Whether the layer is a convolution that Winograd's algorithm computes faster.

    Args:
        layer: Any layer.
        min_pairs: Input times output channels that it must have.
    """
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.dilation) == ((3, 3), (1, 1), (1, 1))
        and layer.padding in PADDINGS
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
        and layer.in_channels * layer.out_channels >= min_pairs
    )
