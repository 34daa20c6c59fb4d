"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), from Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.3."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MIN_CHANNELS = 128  # with fewer, the transforms cost what the products save
TILES = 128  # computed at once: what they expand to stays near the cache
PADDINGS: dict[Any, int] = {(0, 0): 0, "valid": 0, (1, 1): 1, "same": 1}  # as Conv2d has them

# Of one dimension: data (6 -> 6), filter (3 -> 6) and inverse transform (6 -> 4).
_DATA: Sequence[Sequence[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_FILTER: Sequence[Sequence[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_INVERSE: Sequence[Sequence[float]] = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]


def _of_two_dimensions(matrix: Sequence[Sequence[float]]) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one)


class Winograd(nn.Module):
    """A convolution of `pays`, for inference: the same sums in another order, within 1e-4 of the
    outputs' spread. Its weights take four times the memory."""

    weight: Tensor
    bias: Tensor
    data: Tensor
    inverse: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.padding = PADDINGS[layer.padding]
        kernels = layer.weight.detach().double().flatten(2)  # (out, in, 9)
        weight = torch.einsum("kf,oif->kio", _of_two_dimensions(_FILTER), kernels)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", weight.float().contiguous())  # (36, in, out)
        self.register_buffer("bias", bias.clone())
        self.register_buffer("data", _of_two_dimensions(_DATA).float())  # (36, 36)
        self.register_buffer("inverse", _of_two_dimensions(_INVERSE).float())  # (16, 36)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) float32 -> (N, out, H, W), or (N, out, H - 2, W - 2) without padding; in
        channels_last."""
        count, channels, height, width = x.shape
        pad = self.padding
        height, width = height + 2 * pad - 2, width + 2 * pad - 2
        down, across = -(-height // 4), -(-width // 4)  # tiles of 4 x 4
        padded = x.new_zeros(count, 4 * down + 2, 4 * across + 2, channels)
        padded[:, pad : pad + x.shape[2], pad : pad + x.shape[3]] = x.permute(0, 2, 3, 1)
        found = x.new_empty(count, 4 * down, 4 * across, len(self.bias))
        step = max(1, TILES // across)
        for picture, out in zip(padded, found, strict=True):
            for top in range(0, down, step):
                rows = slice(4 * top, 4 * min(top + step, down))
                self._convolve(picture[rows.start : rows.stop + 2], out[rows])
        inside = found[:, :height, :width].permute(0, 3, 1, 2)
        return inside.contiguous(memory_format=torch.channels_last)

    def _convolve(self, pixels: Tensor, out: Tensor) -> None:
        """(4 r + 2, 4 c + 2, in) -> (4 r, 4 c, out)."""
        down, across, outputs = out.shape[0] // 4, out.shape[1] // 4, out.shape[2]
        tiles = pixels.unfold(0, 6, 4).unfold(1, 6, 4).permute(3, 4, 0, 1, 2)  # (6, 6, r, c, in)
        expanded = self.data @ tiles.reshape(36, -1)
        products = torch.bmm(expanded.view(36, down * across, -1), self.weight)  # (36, r c, out)
        sums = (self.inverse @ products.view(36, -1)).view(4, 4, down, across, outputs)
        torch.add(
            sums.permute(2, 0, 3, 1, 4),
            self.bias,
            out=out.view(down, 4, across, 4, outputs),
        )


def pays(layer: nn.Module) -> bool:
    """Whether the layer is a convolution that this way is faster for."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.dilation) == ((3, 3), (1, 1), (1, 1))
        and layer.padding in PADDINGS
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
    )
