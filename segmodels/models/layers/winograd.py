"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) as in Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.3. In their terms, a
tile d of 6 x 6 pixels and a kernel g give 4 x 4 outputs, inverse(filter(g) * data(d))."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from segmodels.utils.parallel import for_each

MIN_CHANNELS = 64  # with fewer, the transforms take longer than the multiplications saved
# Number of tiles computed at a time. With many tiles, large filters are read less often; with few,
# the transformed tiles fit into the cache.
MIN_TILES, MAX_TILES, PAIRS_PER_TILE = 64, 256, 256
KERNELS = 1 << 14  # number of kernels transformed at a time
PADDINGS: dict[Any, int] = {(0, 0): 0, "valid": 0, (1, 1): 1, "same": 1}  # `padding` of Conv2d

# One-dimensional data (6 -> 6), filter (3 -> 6) and inverse (6 -> 4) transforms.
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
    """Apply a one-dimensional transform to the rows and columns of k x k tiles.

    Args:
        matrix: (m, k), the transform.
        x: (k, k, ...) or (k * k, ...) values.

    Returns:
        (m * m, n). Rows and columns are swapped; a second transform swaps them back.
    """
    new, old = matrix.shape
    of_columns = torch.bmm(matrix.expand(old, new, old), x.reshape(old, old, -1))
    of_rows = torch.bmm(matrix.expand(new, new, old), of_columns.transpose(0, 1))
    return of_rows.view(new * new, -1)


def _packed(kernels: Tensor) -> Tensor:
    """Convert kernels from (out, in, 3, 3) to (9, in, out), in column-major order, since
    `_transform_2d` swaps the rows and columns of the data."""
    return kernels.permute(3, 2, 1, 0).flatten(0, 1).contiguous()


@contextmanager
def _filters(kernels: Tensor) -> Iterator[Tensor]:
    """Yield the filter transform (36, in, out) of packed kernels; it is valid inside the context.

    It takes four times the memory of the kernels, but only a few percent of the time of a
    convolution. Therefore it is not stored, but recomputed for each call in memory that all layers
    share.
    """
    inputs, outputs = kernels.shape[1:]
    transform = torch.kron(_FILTER, _FILTER).to(kernels)
    columns = kernels.view(9, -1)
    with _scratch(36 * inputs * outputs, kernels.dtype) as memory:
        filters = memory.view(36, -1)

        def compute(start: int) -> None:
            part = slice(start, start + KERNELS)
            torch.mm(transform, columns[:, part], out=filters[:, part])

        for_each(compute, range(0, inputs * outputs, KERNELS))
        yield filters.view(36, inputs, outputs)


_free_buffers: deque[Tensor] = deque()  # uint8 scratch buffers that are not in use


@contextmanager
def _scratch(size: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield an uninitialised buffer of `size` values on the CPU.

    Buffers are reused, so that the system does not map and zero memory for every call. Their number
    is the largest number of concurrent calls so far.
    """
    count = size * dtype.itemsize
    try:
        memory = _free_buffers.pop()
    except IndexError:
        memory = None
    if memory is None or len(memory) < count:
        with torch.inference_mode(False):  # else it could not be used outside that mode
            memory = torch.empty(count, dtype=torch.uint8)
    try:
        yield memory[:count].view(dtype)
    finally:
        _free_buffers.append(memory)


class _Tiles:
    """The division of `height` x `width` outputs into `down` x `across` tiles."""

    def __init__(self, x: Tensor, padding: int) -> None:
        self.padding = padding
        self.height, self.width = (side + 2 * padding - 2 for side in x.shape[2:])
        self.down, self.across = -(-self.height // 4), -(-self.width // 4)
        self.data, self.inverse = _DATA.to(x), _INVERSE.to(x)

    def parts(self, count: int, pairs: int) -> Iterator[tuple[slice, int, int]]:
        """Divide a batch into parts of similar size, evenly among the threads.

        Args:
            count: Number of images.
            pairs: Number of input channels times number of output channels.

        Yields:
            Images, first row of tiles, and row after the last.
        """
        threads = torch.get_num_threads()
        tiles = min(MAX_TILES, max(MIN_TILES, pairs // PAIRS_PER_TILE))
        total = count * self.down
        rounds = -(-total * self.across // (tiles * threads))
        rows = -(-total // (rounds * threads))
        images = max(1, rows // self.down)
        for first in range(0, count, images):
            for top in range(0, self.down, rows):
                yield slice(first, first + images), top, min(top + rows, self.down)

    def transformed(self, x: Tensor, top: int, end: int) -> Tensor:
        """Compute the data transform of rows `top` to `end` - 1 of tiles: (n, H, W, in) ->
        (36, tiles, in)."""
        first, last = 4 * top - self.padding, 4 * end + 2 - self.padding
        right = 4 * self.across + 2 - self.padding - x.shape[2]
        zeros = (0, 0, self.padding, right, max(0, -first), max(0, last - x.shape[1]))
        pixels = pad(x[:, max(0, first) : last], zeros)
        tiles = pixels.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
        return _transform_2d(self.data, tiles).view(36, -1, x.shape[3])

    def convolved(self, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve (N, in, H, W) with packed kernels; returns (N, out, height, width)."""
        with _filters(kernels) as filters:
            return self._convolved(x, filters, bias)

    def _convolved(self, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        outputs, layout = filters.shape[2], torch.channels_last
        shape = len(x), outputs, 4 * self.down, 4 * self.across
        result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
        x, rows = x.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
        zero = x.new_zeros(1) if bias is None else bias

        def convolve(part: tuple[slice, int, int]) -> None:
            images, top, end = part
            products = torch.bmm(self.transformed(x[images], top, end), filters)
            out = rows[images, 4 * top : 4 * end].view(-1, end - top, 4, self.across, 4, outputs)
            sums = _transform_2d(self.inverse, products).view(
                4, 4, len(out), end - top, self.across, outputs
            )
            torch.add(sums.permute(2, 3, 0, 4, 1, 5), zero, out=out)

        for_each(convolve, self.parts(len(x), filters.shape[1] * outputs))
        if (self.height, self.width) == result.shape[2:]:
            return result
        return result[..., : self.height, : self.width].contiguous(memory_format=layout)

    def kernel_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Compute the gradient of the kernels, (out, in, 3, 3), from the inputs (N, in, H, W) and
        the gradient of the outputs (N, out, height, width)."""
        x, outputs = x.permute(0, 2, 3, 1), gradient.shape[1]
        below, beside = 4 * self.down - self.height, 4 * self.across - self.width
        whole = pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, beside, 0, below))
        total = x.new_zeros(36, x.shape[3], outputs)
        for images, top, end in self.parts(len(x), x.shape[3] * outputs):
            data = self.transformed(x[images], top, end)
            sums = whole[images, 4 * top : 4 * end]
            sums = sums.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(2, 4, 0, 1, 3, 5)
            products = _transform_2d(self.inverse.T, sums).view(36, -1, outputs)
            total.baddbmm_(data.transpose(1, 2), products)
        kernels = _transform_2d(_FILTER.to(x).T, total)
        return kernels.view(3, 3, x.shape[3], outputs).permute(3, 2, 0, 1)


class Winograd(nn.Module):
    """Convolution for inference; replaces a layer for which `is_faster` is true.

    Outputs agree with those of the layer within 1e-4 of their standard deviation. `weight` is
    (9, in, out).
    """

    min_pairs = 64 * 128  # minimum number of input channels times output channels to be faster
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.padding = PADDINGS[layer.padding]
        bias = None if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("weight", _packed(layer.weight.detach()))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, in, H, W) float32.

        Returns:
            (N, out, H, W), or (N, out, H - 2, W - 2) without padding; in channels-last format.
        """
        return _Tiles(x, self.padding).convolved(x, self.weight, self.bias)


class WinogradConv2d(nn.Conv2d):
    """Convolution for training; replaces a layer for which `is_faster` is true.

    It shares the parameters of the layer, and uses Winograd's algorithm for the gradients as well.
    """

    min_pairs = 64 * 64  # less than in `Winograd`, since direct gradients are slower

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
        result: Tensor = _Convolution.apply(x, self.weight, self.bias, PADDINGS[self.padding])
        return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _Tiles(x, padding).convolved(x, _packed(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:  # a convolution with the kernels rotated by 180 degrees
            rotated = _packed(weight.flip(2, 3).transpose(0, 1))
            grad_x = _Tiles(gradient, 2 - ctx.padding).convolved(gradient, rotated, None)
        if ctx.needs_input_grad[1]:
            grad_weight = _Tiles(x, ctx.padding).kernel_gradient(x, gradient)
        if ctx.needs_input_grad[2]:
            grad_bias = gradient.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def is_faster(layer: nn.Module, min_pairs: int) -> bool:
    """Whether a layer is a convolution that Winograd's algorithm computes faster.

    Args:
        layer: Any layer.
        min_pairs: Minimum number of input channels times output channels.
    """
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.dilation) == ((3, 3), (1, 1), (1, 1))
        and layer.padding in PADDINGS
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
        and layer.in_channels * layer.out_channels >= min_pairs
    )
