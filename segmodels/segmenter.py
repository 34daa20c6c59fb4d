"""The one place where pictures become tensors and logits become class maps."""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .fcn import FCN
from .hub import SegmentationModel
from .pictures import Picture, read_picture, resize
from .segmentation import Segmentation
from .unet import UNet

Logits = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> logits (N, num_classes, h, w)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Context around a tile, in pixels: more than any of the networks sees from an output pixel (FCN-8s
# the farthest: 202 for pool5 and fc6, and half a kernel for each deconvolution).
HALO = 288
STRIDE = 32  # tiles begin at its multiples, so that pooling windows fall as in one pass
BAND_PIXELS = 1 << 21  # the picture's own size is filled in bands of rows of so many pixels


class Segmenter:
    """A network ready to segment pictures: on its device, in its precision, batch norms folded.

    model: one of the three networks, for one or three channels. It is copied, not changed.
    device: "auto" (CUDA, then MPS, then CPU) or a torch device.
    precision: of the network's arithmetic, "fp32", "bf16" or "fp16"; "auto" takes bf16 where the
        device computes in it (fp16 on MPS and older CUDA), else fp32. Probabilities are float32.
    tile_size: pictures with more than tile_size x tile_size pixels at the working size go through
        in tiles. Each sees its neighbourhood, so that there are no seams.

    Calls change nothing and may come from several threads.
    """

    def __init__(
        self,
        model: SegmentationModel,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        tile_size: int = 1600,
    ) -> None:
        if model.in_channels not in (1, 3):
            raise ValueError(
                f"pictures have 1 or 3 channels; this {type(model).__name__} takes "
                f"{model.in_channels}: call the model itself"
            )
        if tile_size <= 2 * HALO:
            raise ValueError(f"tile_size must be more than {2 * HALO} pixels, got {tile_size}")
        self.model = model
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.tile_size = tile_size
        self._network = _prepared(model, self.device, self.dtype)
        self._sampling_network = _with_dropout_on(self._network)

    def __call__(
        self, picture: Picture, *, working_size: int | None = None, samples: int = 0
    ) -> Segmentation:
        """Segment one picture: a path, a PIL image, or a uint8 array (H, W), (H, W, 3), (H, W, 4).

        working_size: the longer side, in pixels, at which the network sees the picture; None: the
            network's own, and where it has none, the picture's.
        samples: Monte Carlo samples of a network with dropout (Bayesian SegNet): the mean of their
            probabilities, and their uncertainty. 0: one pass without dropout.
        Raises PictureError for what is no picture.
        """
        array = read_picture(picture)
        if samples:
            return self._result(array, *self._sampled(array, working_size, samples))
        return self._result(array, self._probabilities(self._network, array, working_size))

    def at_stride(
        self, picture: Picture, stride: int, *, working_size: int | None = None
    ) -> Segmentation:
        """An FCN's answer with the skips down to prediction stride 32, 16 or 8 alone, no finer than
        the network's own (`FCN.at_stride`). ValueError for another network."""
        if not isinstance(self._network, FCN):
            raise ValueError(f"prediction strides are FCN's; this is a {type(self.model).__name__}")
        array = read_picture(picture)
        network = partial(self._network.at_stride, stride=stride)
        return self._result(array, self._probabilities(network, array, working_size))

    def _result(
        self, array: NDArray[np.uint8], probabilities: Tensor, variance: Tensor | None = None
    ) -> Segmentation:
        class_map, confidence = _winners(probabilities, array.shape[:2])
        return Segmentation(
            picture=array,
            class_map=class_map,
            confidence=confidence,
            class_names=self.model.class_names,
            palette=self.model.palette,
            uncertainty=None if variance is None else _at_size(variance, array.shape[:2]),
        )

    def probabilities(
        self, picture: Picture, *, working_size: int | None = None
    ) -> NDArray[np.float32]:
        """(num_classes, H, W) float32 class heat maps in [0, 1] at the working size: U-Net's
        pixel-wise softmax (section 3). They sum to 1 in every pixel."""
        array = read_picture(picture)
        return self._probabilities(self._network, array, working_size).numpy()

    @torch.inference_mode()
    def _probabilities(
        self, network: Logits, picture: NDArray[np.uint8], working_size: int | None
    ) -> Tensor:
        """(num_classes, h, w) float32 on the CPU, at the working size."""
        pixels = self._pixels(picture, working_size)
        height, width = pixels.shape[-2:]
        probabilities = torch.empty(self.model.num_classes, height, width)
        for rows, columns in _tiles(height, width, self.tile_size):
            logits = self._region_logits(network, pixels, rows, columns)
            probabilities[:, rows, columns] = logits[0].float().softmax(0).cpu()
        return probabilities

    def _sampled(
        self, picture: NDArray[np.uint8], working_size: int | None, samples: int
    ) -> tuple[Tensor, Tensor]:
        """Mean (num_classes, h, w) of the sampled probabilities, and their variance over the
        samples, averaged over the classes (h, w)."""
        if samples < 1:
            raise ValueError(f"samples must be 0 (none) or more, got {samples}")
        if not getattr(self.model, "dropout", 0):
            raise ValueError(
                f"samples need a network with dropout; this {type(self.model).__name__} has none: "
                "leave samples out, or train with dropout, 0.5 for example"
            )
        mean, squares = torch.zeros(()), torch.zeros(())
        for number in range(1, samples + 1):  # Welford's running mean and squared deviations
            sample = self._probabilities(self._sampling_network, picture, working_size)
            deviation = sample - mean
            mean = mean + deviation / number
            squares = squares + deviation * (sample - mean)
        return mean, (squares / samples).mean(0)

    def _pixels(self, picture: NDArray[np.uint8], working_size: int | None) -> Tensor:
        """The network's input, (1, in_channels, h, w) float32 on its device."""
        size = working_size or self.model.working_size or max(picture.shape[:2])
        if size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
        picture = resize(picture, size)
        if self.model.in_channels == 1:
            picture = np.array(Image.fromarray(picture).convert("L"))[..., None]
        pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float() / 255
        return normalise(pixels, self.model)

    def _region_logits(
        self, network: Logits, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """Logits (1, num_classes, h, w) of a part of the picture, seen with its context."""
        if isinstance(self.model, UNet) and self.model.padding == "valid":
            return self._mirrored_logits(network, pixels, rows, columns)
        height, width = pixels.shape[-2:]
        top, left = max(0, rows.start - HALO), max(0, columns.start - HALO)
        bottom, right = min(height, rows.stop + HALO), min(width, columns.stop + HALO)
        logits = self._run(network, pixels[..., top:bottom, left:right])
        return logits[
            ..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]

    def _mirrored_logits(
        self, network: Logits, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """The unpadded U-Net's overlap-tile strategy (section 2, Figure 2): the context that its
        convolutions consume is the picture's own or, beyond its edge, its mirror image."""
        assert isinstance(self.model, UNet)
        for axis, region in ((-2, rows), (-1, columns)):
            size, margin = self.model.valid_input_size(region.stop - region.start)
            start = region.start - margin
            indices = mirrored(torch.arange(start, start + size), pixels.shape[axis])
            pixels = pixels.index_select(axis, indices.to(pixels.device))
        logits = self._run(network, pixels)
        return logits[..., : rows.stop - rows.start, : columns.stop - columns.start]

    def _run(self, network: Logits, pixels: Tensor) -> Tensor:
        return network(pixels.to(self.dtype, memory_format=torch.channels_last))


def normalise(pixels: Tensor, model: SegmentationModel) -> Tensor:
    """(N, C, H, W) in [0, 1] -> the model's input, by its `image_mean` and `image_std`."""
    mean = torch.tensor(model.image_mean, device=pixels.device)[:, None, None]
    std = torch.tensor(model.image_std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def pick_device(device: str | torch.device) -> torch.device:
    """The named device, or for "auto" the best that is there: CUDA, then MPS, then the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "fp32", "bf16" or "fp16"; for "auto" what the device is fast in."""
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != "auto":
        raise ValueError(f'precision must be "auto", "fp32", "bf16" or "fp16", got {precision!r}')
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "mps":
        return torch.float16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


def mirrored(indices: Tensor, size: int) -> Tensor:
    """Indices of any value folded into 0 .. size - 1 by reflection at the first and last pixel."""
    if size == 1:
        return torch.zeros_like(indices)
    period = 2 * (size - 1)
    indices = indices % period
    return torch.minimum(indices, period - indices)


def fold_batch_norms(network: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it, in place; evaluation mode only."""
    convolution: nn.Conv2d | None = None
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d) and convolution is not None:
                fused = fuse_conv_bn_eval(convolution, layer)
                convolution.weight, convolution.bias = fused.weight, fused.bias
                parent._modules[name] = nn.Identity()
            convolution = layer if isinstance(layer, nn.Conv2d) else None


def _prepared(model: SegmentationModel, device: torch.device, dtype: torch.dtype) -> nn.Module:
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(network)
    return network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _with_dropout_on(network: nn.Module) -> nn.Module:
    """A second network on the same weights whose dropout stays on, for Monte Carlo samples."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    sampling = copy.deepcopy(network, shared)
    for layer in sampling.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.train()
    return sampling


def _tiles(height: int, width: int, tile_size: int) -> Iterator[tuple[slice, slice]]:
    """The parts, rows and columns, that a picture is computed in: one, or with their context no
    larger than tile_size x tile_size."""
    if height * width <= tile_size**2:
        yield slice(0, height), slice(0, width)
        return
    core = (tile_size - 2 * HALO) // STRIDE * STRIDE
    for top in range(0, height, core):
        for left in range(0, width, core):
            yield slice(top, min(top + core, height)), slice(left, min(left + core, width))


def _at_size(values: Tensor, size: tuple[int, ...]) -> NDArray[np.float32]:
    """(h, w) -> (H, W), bilinear."""
    scaled = interpolate(values[None, None], size=tuple(size), mode="bilinear", antialias=True)
    return scaled[0, 0].clamp(min=0).numpy()


def _winners(
    probabilities: Tensor, size: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class map (H, W) and winning probability (H, W) at the picture's size, from (C, h, w): the
    probabilities are interpolated bilinearly, a band of rows at a time."""
    height, width = size
    h, w = probabilities.shape[-2:]
    class_map = np.empty((height, width), np.uint8)
    confidence = np.empty((height, width), np.float32)
    if (height, width) != (h, w):
        # Columns first, and rows too where they become fewer; rows that become more come below.
        fewer = (min(h, height), width)
        probabilities = interpolate(
            probabilities[None], size=fewer, mode="bilinear", antialias=True
        )[0]
    h = probabilities.shape[-2]
    position = ((torch.arange(height) + 0.5) * h / height - 0.5).clamp(0, h - 1)
    above = position.long()
    below = (above + 1).clamp(max=h - 1)
    weight = (position - above)[:, None]
    band = max(1, BAND_PIXELS // width)
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        upper, lower = probabilities[:, above[rows]], probabilities[:, below[rows]]
        best = torch.lerp(upper, lower, weight[rows]).max(0)
        class_map[rows] = best.indices.byte().numpy()
        confidence[rows] = best.values.clamp(0, 1).numpy()
    return class_map, confidence
