"""The one place where pictures become tensors and logits become class maps."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .hub import SegmentationModel
from .pictures import Picture, read_image, resize_image
from .segmentation import Segmentation
from .segnet import SegNet
from .unet import UNet
from .upsample import FullSize

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Context around a tile, in pixels: more than any of the networks sees from an output pixel (FCN-8s
# the farthest: 202 for pool5 and fc6, and half a kernel for each deconvolution).
HALO = 288
STRIDE = 32  # tiles begin at its multiples, so that pooling windows fall as in one pass


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
        self._input_dtype = next(self._network.parameters()).dtype
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
        image = read_image(picture)
        pixels = self._pixels(image, working_size)
        size = (image.height, image.width)
        class_map, confidence, uncertainty = self._answer(pixels, size, samples)
        return Segmentation(
            picture=np.asarray(image),
            class_map=class_map,
            confidence=confidence,
            class_names=self.model.class_names,
            palette=self.model.palette,
            uncertainty=uncertainty,
        )

    def probabilities(
        self, picture: Picture, *, working_size: int | None = None
    ) -> NDArray[np.float32]:
        """(num_classes, H, W) float32 class heat maps in [0, 1] at the working size: U-Net's
        pixel-wise softmax (section 3). They sum to 1 in every pixel."""
        pixels = self._pixels(read_image(picture), working_size)
        return self._whole(pixels, samples=0)[0].numpy()

    def _answer(
        self, pixels: Tensor, size: tuple[int, int], samples: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32] | None]:
        """Class map, confidence and, from samples, uncertainty, (H, W) each."""
        working = (pixels.shape[-2], pixels.shape[-1])
        if working[0] > size[0] or working[1] > size[1]:
            probabilities, variance = self._whole(pixels, samples)
            probabilities = _resized(probabilities, size)
            answer = FullSize(size, size)
            answer.fill(probabilities, slice(0, size[0]), slice(0, size[1]))
        else:  # tile by tile, so that no more than a tile's probabilities are held at once
            answer = FullSize(working, size)
            variance = torch.empty(working)
            for rows, columns, probabilities, spread in self._tiled(pixels, samples):
                answer.fill(probabilities, rows, columns)
                variance[rows, columns] = spread
        uncertainty = _resized(variance[None], size)[0].numpy() if samples else None
        return *answer.finished(), uncertainty

    def _whole(self, pixels: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Probabilities (num_classes, h, w) of the whole picture, and their variance (h, w)."""
        height, width = pixels.shape[-2:]
        whole = torch.empty(self.model.num_classes, height, width)
        variance = torch.empty(height, width)
        for rows, columns, probabilities, spread in self._tiled(pixels, samples):
            whole[:, rows, columns] = probabilities[:, : len(spread), : spread.shape[1]]
            variance[rows, columns] = spread
        return whole, variance

    def _tiled(self, pixels: Tensor, samples: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Each tile's rows and columns, its probabilities (num_classes, r, c) with one more row and
        column where there are any, for what lies between this tile and the next, and their variance
        over the samples (r, c), 0 without samples."""
        self._check_samples(samples)
        height, width = pixels.shape[-2:]
        for rows, columns in _tiles(height, width, self.tile_size):
            seen = slice(rows.start, min(rows.stop + 1, height))
            across = slice(columns.start, min(columns.stop + 1, width))
            if samples:
                probabilities, variance = self._sampled(pixels, seen, across, samples)
            else:
                probabilities = self._probabilities(self._network, pixels, seen, across)
                variance = torch.zeros(()).expand(probabilities.shape[1:])
            own = variance[: rows.stop - rows.start, : columns.stop - columns.start]
            yield rows, columns, probabilities, own

    @torch.inference_mode()
    def _probabilities(
        self, network: nn.Module, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """(num_classes, r, c) float32 on the CPU, of a part of the picture."""
        logits = self._region_logits(network, pixels, rows, columns)
        return logits[0].float().softmax(0).cpu()

    def _check_samples(self, samples: int) -> None:
        if samples < 0:
            raise ValueError(f"samples must be 0 (none) or more, got {samples}")
        if samples and not getattr(self.model, "dropout", 0):
            raise ValueError(
                f"samples need a network with dropout; this {type(self.model).__name__} has none: "
                "leave samples out, or train with dropout, 0.5 for example"
            )

    def _sampled(
        self, pixels: Tensor, rows: slice, columns: slice, samples: int
    ) -> tuple[Tensor, Tensor]:
        """Mean (num_classes, r, c) of the sampled probabilities, and their variance over the
        samples, averaged over the classes (r, c)."""
        mean, squares = torch.zeros(()), torch.zeros(())
        for number in range(1, samples + 1):  # Welford's running mean and squared deviations
            sample = self._probabilities(self._sampling_network, pixels, rows, columns)
            deviation = sample - mean
            mean = mean + deviation / number
            squares = squares + deviation * (sample - mean)
        return mean, (squares / samples).mean(0)

    def _pixels(self, image: Image.Image, working_size: int | None) -> Tensor:
        """(1, in_channels, h, w) uint8 at the working size."""
        size = working_size or self.model.working_size or max(image.size)
        if size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
        picture = np.array(
            resize_image(image, size).convert("RGB" if self.model.in_channels == 3 else "L")
        )
        return torch.from_numpy(picture.reshape(1, *picture.shape[:2], -1)).permute(0, 3, 1, 2)

    def _region_logits(
        self, network: nn.Module, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """Logits (1, num_classes, r, c) of a part of the picture, seen with its context."""
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
        self, network: nn.Module, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """The unpadded U-Net's overlap-tile strategy (section 2, Figure 2): the context that its
        convolutions consume is the picture's own or, beyond its edge, its mirror image."""
        assert isinstance(self.model, UNet)
        for axis, region in ((-2, rows), (-1, columns)):
            size, margin = self.model.valid_input_size(region.stop - region.start)
            start = region.start - margin
            indices = mirrored(torch.arange(start, start + size), pixels.shape[axis])
            pixels = pixels.index_select(axis, indices)
        logits = self._run(network, pixels)
        return logits[..., : rows.stop - rows.start, : columns.stop - columns.start]

    def _run(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """Logits of uint8 pixels (N, in_channels, h, w)."""
        return network(self._values(pixels))

    def _values(self, pixels: Tensor) -> Tensor:
        """The network's input, from uint8 pixels (N, in_channels, h, w)."""
        values = normalise(pixels.to(self.device).float() / 255, self.model)
        return values.to(self._input_dtype, memory_format=torch.channels_last)


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
    exact = copy.deepcopy(network.encoders[0]) if isinstance(network, SegNet) else None
    network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(network, SegNet) and exact is not None and dtype is torch.bfloat16:
        # In bfloat16's 8 bits neighbours often tie, and the indices of pool1, which place the
        # boundaries, become the first of them in place of the largest: 0.9 % of CamVid's pixels
        # changed their class. With the encoder before pool1 in float32 it is 0.4 %.
        network.encoders[0] = exact.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.encoders[1].register_forward_pre_hook(_to_bfloat16)
    return network


def _to_bfloat16(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].bfloat16(),)


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


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w) -> (C, H, W), bilinear, antialiased where it shrinks."""
    resized = interpolate(values[None], size=size, mode="bilinear", antialias=True)[0]
    return resized.clamp(min=0)
