"""The one place where pictures become tensors and logits become class maps."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segmodels.data.image_io import MAX_PIXELS, Picture, read_image, resize_image
from segmodels.inference._oom import Answer, first_that_fits, on_cpu
from segmodels.inference._upsample import FullSize
from segmodels.inference.mc_dropout import repeatable_draws, with_dropout_on
from segmodels.inference.optimize import pick_device, pick_precision, prepared
from segmodels.inference.results import Segmentation
from segmodels.models.base import SegmentationModel
from segmodels.models.unet import mirrored

Logits = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> logits (N, num_classes, h, w)
# Context around a tile, in pixels: more than any of the networks sees from an output pixel (FCN-8s
# the farthest: 202 for pool5 and fc6, and half a kernel for each deconvolution).
HALO = 288
STRIDE = 32  # tiles begin at its multiples, so that pooling windows fall as in one pass
SMALL_TILE = 2 * HALO + 8 * STRIDE  # where memory is short; the smaller, the more is seen twice

# Rows and columns of a part of the picture; its probabilities (num_classes, r, c), with one more
# row and column where there are any; their variance (r, c) over Monte Carlo samples, if there are.
Part = tuple[slice, slice, Tensor, Tensor | None]


class Segmenter:
    """A network ready to segment pictures: on its device, in its precision, batch norms folded.

    model: one of the three networks, for one or three channels. It is copied, not changed.
    device: "auto" (CUDA, then MPS, then CPU) or a torch device.
    precision: of the network's arithmetic, "fp32", "bf16" or "fp16"; "auto" takes bf16 where the
        device is fastest in it (fp16 on MPS and older CUDA), else fp32. Probabilities are float32.
    tile_size: pictures with more than tile_size x tile_size pixels at the working size go through
        in tiles. Each sees its neighbourhood, so that there are no seams.
    max_pixels: pictures with more are refused before they are decoded.

    Calls change nothing and may come from several threads. A picture for which the device's memory
    is not enough goes through in small tiles or, if that is too much too, on the CPU; the result's
    `note` says so.
    """

    def __init__(
        self,
        model: SegmentationModel,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        tile_size: int = 1600,
        max_pixels: int = MAX_PIXELS,
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
        self.max_pixels = max_pixels
        self._take(prepared(model, self.device, self.dtype))

    def __call__(
        self, picture: Picture, *, working_size: int | None = None, samples: int = 0
    ) -> Segmentation:
        """Segment one picture: a path, a PIL image, or a uint8 array (H, W), (H, W, 3), (H, W, 4).

        working_size: the longer side, in pixels, at which the network sees the picture; None: the
            network's own, and where it has none, the picture's.
        samples: Monte Carlo samples of a network with dropout (Bayesian SegNet): the mean of their
            probabilities, and their uncertainty, the same in every call with the same
            `torch.manual_seed`. 0: one pass without dropout.
        Raises PictureError for what is no picture, or too large for the memory there is.
        """

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            return segmenter._tiled(pixels, samples)

        return self._of_one(picture, working_size, parts)

    def together(self, images: Sequence[Image.Image], pixels: Tensor) -> list[Segmentation]:
        """Several pictures in one pass: their RGB images, and their `pixels`, (N, in_channels, h,
        w), of one size. Those of more than a tile go through one by one."""

        def compute(segmenter: Segmenter) -> list[Segmentation]:
            found = segmenter._in_one_pass(pixels)
            each = zip(images, pixels.split(1), found, strict=True)
            return [segmenter._segmentation(*answer) for answer in each]

        results, note = self._within_memory(compute)
        return [replace(result, note=note) for result in results]

    def at_stride(
        self, picture: Picture, stride: int, *, working_size: int | None = None
    ) -> Segmentation:
        """An FCN's answer with the skips down to prediction stride 32, 16 or 8 alone, no finer than
        the network's own (`FCN.at_stride`). ValueError for another network."""
        if stride not in self.model.prediction_strides:
            self.model.at_stride(torch.empty(0), stride)  # raises, and says which strides there are

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            network = partial(cast(SegmentationModel, segmenter.network).at_stride, stride=stride)
            return segmenter._tiled(pixels, samples=0, network=network)

        return self._of_one(picture, working_size, parts)

    def probabilities(
        self, picture: Picture, *, working_size: int | None = None
    ) -> NDArray[np.float32]:
        """(num_classes, H, W) float32 class heat maps in [0, 1] at the working size: U-Net's
        pixel-wise softmax (section 3). They sum to 1 in every pixel."""
        pixels = self.pixels(read_image(picture, max_pixels=self.max_pixels), working_size)
        return self._within_memory(lambda segmenter: segmenter._whole(pixels))[0].numpy()

    def _of_one(
        self,
        picture: Picture,
        working_size: int | None,
        parts: Callable[["Segmenter", Tensor], Iterator[Part]],
    ) -> Segmentation:
        """The answer for one picture, from the parts that a segmenter gives of its pixels."""
        image = read_image(picture, max_pixels=self.max_pixels)
        if image is picture:  # the answer's is its own, whatever becomes of the caller's
            image = image.copy()

        def compute(segmenter: Segmenter) -> Segmentation:
            pixels = segmenter.pixels(image, working_size)
            return segmenter._segmentation(image, pixels, parts(segmenter, pixels))

        result, note = self._within_memory(compute)
        return replace(result, note=note)

    def _within_memory(self, compute: Callable[["Segmenter"], Answer]) -> tuple[Answer, str | None]:
        """`compute` with this segmenter or, where memory runs out, one that needs less; and what
        the user should know of it."""
        where = "memory" if self.device.type == "cpu" else "the memory of the GPU"
        ways: list[tuple[str | None, Callable[[], Segmenter]]] = [
            (None, lambda: self),
            (f"Computed in small tiles: {where} was short.", self._in_small_tiles),
        ]
        if self.device.type != "cpu":
            ways.append((f"Computed on the CPU: {where} was short.", self._on_cpu))
        return first_that_fits(ways, compute)

    def _in_small_tiles(self) -> "Segmenter":
        smaller = copy.copy(self)
        smaller.tile_size = min(self.tile_size, SMALL_TILE)
        return smaller

    def _on_cpu(self) -> "Segmenter":
        moved = self._in_small_tiles()
        moved.device, moved.dtype = torch.device("cpu"), torch.float32
        moved._take(on_cpu(self.network))
        return moved

    def _take(self, network: nn.Module) -> None:
        self.network = network
        self._input_dtype = next(network.parameters()).dtype
        self._sampling_network = with_dropout_on(network)

    def _segmentation(
        self, image: Image.Image, pixels: Tensor, parts: Iterator[Part]
    ) -> Segmentation:
        """The result at the image's own size, from parts at the size of its pixels."""
        size = (image.height, image.width)
        working = (pixels.shape[-2], pixels.shape[-1])
        variance: Tensor | None = None
        if working[0] > size[0] or working[1] > size[1]:
            probabilities, variance = self._assembled(working, parts)
            answer = FullSize(size, size)
            answer.fill(_resized(probabilities, size), slice(0, size[0]), slice(0, size[1]))
        else:  # part by part, so that no more than a tile's probabilities are held at once
            answer = FullSize(working, size)
            for rows, columns, probabilities, spread in parts:
                answer.fill(probabilities, rows, columns)
                if spread is not None:
                    variance = torch.empty(working) if variance is None else variance
                    variance[rows, columns] = spread
        return Segmentation(
            image=image,
            class_map=answer.class_map(),
            make_confidence=answer.confidence,
            class_names=self.model.class_names,
            palette=self.model.palette,
            uncertainty=None if variance is None else _resized(variance[None], size)[0].numpy(),
        )

    def _whole(self, pixels: Tensor) -> Tensor:
        """Probabilities (num_classes, h, w) of a whole picture."""
        working = (pixels.shape[-2], pixels.shape[-1])
        return self._assembled(working, self._tiled(pixels, samples=0))[0]

    def _assembled(
        self, working: tuple[int, int], parts: Iterator[Part]
    ) -> tuple[Tensor, Tensor | None]:
        """Probabilities (num_classes, h, w) of a whole picture, and their variance (h, w)."""
        whole = torch.empty(self.model.num_classes, *working)
        variance: Tensor | None = None
        for rows, columns, probabilities, spread in parts:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            whole[:, rows, columns] = probabilities[:, :height, :width]
            if spread is not None:
                variance = torch.empty(working) if variance is None else variance
                variance[rows, columns] = spread
        return whole, variance

    def _in_one_pass(self, pixels: Tensor) -> list[Iterator[Part]]:
        """The parts of each picture of a batch."""
        height, width = pixels.shape[-2:]
        if height * width > self.tile_size**2:
            return [self._tiled(one, samples=0) for one in pixels.split(1)]
        everything = slice(0, height), slice(0, width)
        found = self._probabilities(self.network, pixels, *everything)
        return [iter([(*everything, probabilities, None)]) for probabilities in found]

    def _tiled(self, pixels: Tensor, samples: int, network: Logits | None = None) -> Iterator[Part]:
        """Each tile of one picture's pixels, by the `network`, or else the segmenter's own."""
        self._check_samples(samples)
        height, width = pixels.shape[-2:]
        for rows, columns in _tiles(height, width, self.tile_size):
            # One more row and column, for what lies between this tile and the next.
            seen = slice(rows.start, min(rows.stop + 1, height))
            across = slice(columns.start, min(columns.stop + 1, width))
            if samples:
                probabilities, variance = self._sampled(pixels, seen, across, samples)
                own = variance[: rows.stop - rows.start, : columns.stop - columns.start]
                yield rows, columns, probabilities, own
            else:
                found = self._probabilities(network or self.network, pixels, seen, across)
                yield rows, columns, found[0], None

    @torch.inference_mode()
    def _probabilities(
        self, network: Logits, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """(N, num_classes, r, c) float32 on the CPU, of a part of each picture."""
        region, inside = self.region(pixels, rows, columns)
        logits = network(self.values(region))[(..., *inside)]
        return logits.float().softmax(1).cpu()

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
        with repeatable_draws(self.device):
            for number in range(1, samples + 1):  # Welford's running mean and squared deviations
                sample = self._probabilities(self._sampling_network, pixels, rows, columns)[0]
                deviation = sample - mean
                mean = mean + deviation / number
                squares = squares + deviation * (sample - mean)
        return mean, (squares / samples).mean(0)

    # ---- the steps of a call ----

    def pixels(self, image: Image.Image, working_size: int | None = None) -> Tensor:
        """(1, in_channels, h, w) uint8 at the working size."""
        size = working_size or self.model.working_size or max(image.size)
        if size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
        mode = "RGB" if self.model.in_channels == 3 else "L"
        array = np.array(resize_image(image, size).convert(mode))
        return torch.from_numpy(array).view(1, *array.shape[:2], -1).permute(0, 3, 1, 2)

    def region(
        self, pixels: Tensor, rows: slice, columns: slice
    ) -> tuple[Tensor, tuple[slice, slice]]:
        """What the network must see for a part of the picture: that part with its context, and
        where the part then lies in the logits."""
        if not self.model.keeps_size:
            return self._mirrored_region(pixels, rows, columns)
        top, left = max(0, rows.start - HALO), max(0, columns.start - HALO)
        region = pixels[..., top : rows.stop + HALO, left : columns.stop + HALO]
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        return region, inside

    def _mirrored_region(
        self, pixels: Tensor, rows: slice, columns: slice
    ) -> tuple[Tensor, tuple[slice, slice]]:
        """The unpadded U-Net's overlap-tile strategy (section 2, Figure 2): the context that its
        convolutions consume is the picture's own or, beyond its edge, its mirror image."""
        for axis, part in ((-2, rows), (-1, columns)):
            size, margin = self.model.input_size_for(part.stop - part.start)
            start = part.start - margin
            indices = mirrored(torch.arange(start, start + size), pixels.shape[axis])
            pixels = pixels.index_select(axis, indices)
        return pixels, (slice(rows.stop - rows.start), slice(columns.stop - columns.start))

    def values(self, pixels: Tensor) -> Tensor:
        """The network's input: uint8 (N, in_channels, h, w), normalised, on its device, in its
        dtype and layout."""
        values = normalise(pixels.to(self.device).float() / 255, self.model)
        return values.to(self._input_dtype, memory_format=torch.channels_last)


def normalise(pixels: Tensor, model: SegmentationModel) -> Tensor:
    """(N, C, H, W) in [0, 1] -> the model's input, by its `image_mean` and `image_std`."""
    mean = torch.tensor(model.image_mean, device=pixels.device)[:, None, None]
    std = torch.tensor(model.image_std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


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
