"""The one place where images become tensors and logits become class maps."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segmodels.data.image_io import MAX_PIXELS, Picture
from segmodels.inference._oom import Answer, first_that_fits, on_cpu
from segmodels.inference._upsample import FullSize
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.mc_dropout import repeatable_draws, with_dropout_on
from segmodels.inference.optimize import pick_device, pick_precision, precision_of, prepared
from segmodels.inference.results import Segmentation
from segmodels.inference.tiling import smallest_tile_size, tiles, with_context
from segmodels.models.base import SegmentationModel

Logits = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> logits (N, num_classes, h, w)

# Rows and columns of a part of the image; its probabilities (num_classes, r, c), with one more row
# and column where there are any; their variance (r, c) over Monte Carlo samples, if there are.
Part = tuple[slice, slice, Tensor, Tensor | None]


class Segmenter:
    """A network ready to segment images: on its device, in its precision, batch norms folded.

    Calls change nothing and may come from several threads. An image for which the device's memory
    is not enough is segmented in smaller tiles or, if that is still too much, on the CPU; the
    result's `note` says so.

    Args:
        model: One of the networks, also if it is wrapped by `torch.compile`, `DataParallel` or
            `DistributedDataParallel`. It is copied, not changed.
        device: "auto" (CUDA, then MPS, then CPU) or a torch device.
        precision: Of the network's arithmetic: "fp32", "bf16", "fp16" or "auto". "auto" depends on
            the hardware alone: bf16 on a CPU that computes it faster than fp32 (see
            `segmodels.utils.cpu`) and on CUDA, fp16 on MPS and older CUDA, fp32 elsewhere.
            Probabilities are always float32.
        tile_size: Images with more than tile_size x tile_size pixels at the working size are
            segmented in tiles. Each sees its neighbourhood, so that there are no seams.
        max_pixels: Images with more are refused before they are decoded.

    Attributes:
        model: The network that was given.
        device: The torch device.
        dtype: The torch dtype of the network's arithmetic.
        network: The prepared copy that runs.

    Raises:
        TypeError: If `model` is or holds none of the networks.
        ValueError: If an argument is out of range.

    Examples:
        >>> from segmodels import UNet
        >>> model = UNet(class_names=["sky", "ground"], base_channels=2)
        >>> result = Segmenter(model, "cpu")(np.zeros((20, 30, 3), np.uint8))
        >>> result.class_map.shape
        (20, 30)
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        tile_size: int = 1600,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.model = _unwrapped(model)
        if tile_size <= 2 * self.model.tile_context:
            least = 2 * self.model.tile_context
            raise ValueError(f"tile_size must be more than {least} pixels, got {tile_size}")
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.tile_size = tile_size
        self.max_pixels = max_pixels
        self._use(prepared(self.model, self.device, self.dtype))

    @property
    def precision(self) -> str:
        """The precision of the network's arithmetic: "fp32", "bf16" or "fp16"."""
        return precision_of(self.dtype)

    def __call__(
        self,
        image: Picture | DecodedImage,
        *,
        working_size: int | None = None,
        samples: int = 0,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: A path, a PIL image, a uint8 array (H, W), (H, W, 3) or (H, W, 4), or a
                `DecodedImage`. For a network of other than 1 and 3 channels: a path (multispectral
                TIFF, .npy) or a uint8 array (H, W, in_channels).
            working_size: The longer side, in pixels, at which the network sees the image. None: the
                network's own, or else the image's.
            samples: Monte Carlo samples of a network with dropout (Bayesian SegNet): the mean of
                their probabilities, and their uncertainty, the same in every call with the same
                `torch.manual_seed`. 0: one pass without dropout.

        Returns:
            The class of every pixel at the image's own size.

        Raises:
            PictureError: If it is not a readable image, or needs more memory than there is.
            ValueError: If `working_size` or `samples` is out of range, or the network has no
                dropout to sample.
        """

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            return segmenter._tiled(pixels, samples)

        return self._segment(image, working_size, parts)

    def segment_batch(self, images: Sequence[DecodedImage], pixels: Tensor) -> list[Segmentation]:
        """Segment several images in one pass; those of more than a tile one by one.

        Args:
            images: The images.
            pixels: Their `pixels`, (N, in_channels, h, w), of one size.
        """

        def compute(segmenter: Segmenter) -> list[Segmentation]:
            found = segmenter._in_one_pass(pixels)
            each = zip(images, pixels.split(1), found, strict=True)
            return [segmenter._result(*answer) for answer in each]

        results, note = self._within_memory(compute)
        return [replace(result, note=note) for result in results]

    def at_stride(
        self, image: Picture | DecodedImage, stride: int, *, working_size: int | None = None
    ) -> Segmentation:
        """An FCN's answer without the skips that are finer than a prediction stride.

        Args:
            image: As in a call.
            stride: One of the network's `prediction_strides`, 32, 16 or 8.
            working_size: As in a call.

        Raises:
            ValueError: If the network has no such prediction stride.
        """
        if stride not in self.model.prediction_strides:
            self.model.at_stride(torch.empty(0), stride)  # raises, and says which strides there are

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            model = cast(SegmentationModel, segmenter.network)
            network = partial(model.at_stride, stride=stride)
            return segmenter._tiled(pixels, samples=0, network=network)

        return self._segment(image, working_size, parts)

    def probabilities(
        self, image: Picture | DecodedImage, *, working_size: int | None = None
    ) -> NDArray[np.float32]:
        """The class heat maps at the working size: U-Net's pixel-wise softmax (section 3).

        Args:
            image: As in a call.
            working_size: As in a call.

        Returns:
            (num_classes, H, W) float32 in [0, 1]; the classes of a pixel sum to 1.
        """
        pixels = self.pixels(self._decoded(image), working_size)
        return self._within_memory(lambda segmenter: segmenter._whole(pixels))[0].numpy()

    def _decoded(self, image: Picture | DecodedImage) -> DecodedImage:
        if isinstance(image, DecodedImage):
            return image
        channels = self.model.in_channels
        return DecodedImage.read(image, max_pixels=self.max_pixels, channels=channels)

    def _segment(
        self,
        image: Picture | DecodedImage,
        working_size: int | None,
        parts: Callable[["Segmenter", Tensor], Iterator[Part]],
    ) -> Segmentation:
        """The answer for one image, from the parts that a segmenter gives of its pixels."""
        decoded = self._decoded(image)

        def compute(segmenter: Segmenter) -> Segmentation:
            pixels = segmenter.pixels(decoded, working_size)
            return segmenter._result(decoded, pixels, parts(segmenter, pixels))

        result, note = self._within_memory(compute)
        return replace(result, note=note)

    def _within_memory(self, compute: Callable[["Segmenter"], Answer]) -> tuple[Answer, str | None]:
        """`compute` with this segmenter or, where memory runs out, one that needs less; and what
        the user should know of it."""
        where = "memory" if self.device.type == "cpu" else "GPU memory"
        attempts: list[tuple[str | None, Callable[[], Segmenter]]] = [
            (None, lambda: self),
            (f"Segmented in small tiles because {where} ran out.", self._in_small_tiles),
        ]
        if self.device.type != "cpu":
            attempts.append((f"Segmented on the CPU because {where} ran out.", self._on_cpu))
        return first_that_fits(attempts, compute)

    def _in_small_tiles(self) -> "Segmenter":
        smaller = copy.copy(self)
        smaller.tile_size = min(self.tile_size, smallest_tile_size(self.model.tile_context))
        return smaller

    def _on_cpu(self) -> "Segmenter":
        moved = self._in_small_tiles()
        moved.device, moved.dtype = torch.device("cpu"), torch.float32
        moved._use(on_cpu(self.network))
        return moved

    def _use(self, network: nn.Module) -> None:
        self.network = network
        self._input_dtype = next(network.parameters()).dtype
        self._sampling_network = with_dropout_on(network)

    def _result(self, image: DecodedImage, pixels: Tensor, parts: Iterator[Part]) -> Segmentation:
        """The result at the image's own size, from parts at the size of its pixels."""
        size = (image.image.height, image.image.width)
        working = (pixels.shape[-2], pixels.shape[-1])
        variance: Tensor | None = None
        if working[0] > size[0] or working[1] > size[1]:
            probabilities, variance = self._assembled(working, parts)
            answer = FullSize(size, size)
            answer.fill(
                resize_probabilities(probabilities, size), slice(0, size[0]), slice(0, size[1])
            )
        else:  # part by part, so that no more than a tile's probabilities are held at once
            answer = FullSize(working, size)
            for rows, columns, probabilities, spread in parts:
                answer.fill(probabilities, rows, columns)
                if spread is not None:
                    variance = torch.empty(working) if variance is None else variance
                    variance[rows, columns] = spread
        return Segmentation(
            image=image.image,
            class_map=answer.class_map(),
            make_confidence=answer.confidence,
            class_names=self.model.class_names,
            palette=self.model.palette,
            uncertainty=None
            if variance is None
            else resize_probabilities(variance[None], size)[0].numpy(),
        )

    def _whole(self, pixels: Tensor) -> Tensor:
        """Probabilities (num_classes, h, w) of a whole image."""
        working = (pixels.shape[-2], pixels.shape[-1])
        return self._assembled(working, self._tiled(pixels, samples=0))[0]

    def _assembled(
        self, working: tuple[int, int], parts: Iterator[Part]
    ) -> tuple[Tensor, Tensor | None]:
        """Probabilities (num_classes, h, w) of a whole image, and their variance (h, w)."""
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
        """The parts of each image of a batch."""
        height, width = pixels.shape[-2:]
        if height * width > self.tile_size**2:
            return [self._tiled(one, samples=0) for one in pixels.split(1)]
        everything = slice(0, height), slice(0, width)
        found = self._probabilities(self.network, pixels, *everything)
        return [iter([(*everything, probabilities, None)]) for probabilities in found]

    def _tiled(self, pixels: Tensor, samples: int, network: Logits | None = None) -> Iterator[Part]:
        """Each tile of one image's pixels, by `network` or the segmenter's own."""
        self._check_samples(samples)
        height, width = pixels.shape[-2:]
        for rows, columns in tiles(height, width, self.tile_size, self.model.tile_context):
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
        """(N, num_classes, r, c) float32 on the CPU, of a part of each image."""
        region, inside = with_context(self.model, pixels, rows, columns)
        logits = network(self.values(region))[(..., *inside)]
        return logits.float().softmax(1).cpu()

    def _check_samples(self, samples: int) -> None:
        if samples < 0:
            raise ValueError(f"samples must be 0 (none) or more, got {samples}")
        if samples and not self.model.has_dropout:
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

    def pixels(self, image: DecodedImage, working_size: int | None = None) -> Tensor:
        """(1, in_channels, h, w) uint8 at the working size."""
        size = working_size or self.model.working_size or max(image.image.size)
        if size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
        return image.pixels(size, self.model.in_channels)

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


def _unwrapped(model: nn.Module) -> SegmentationModel:
    """The network itself, or the one that a wrapper such as `torch.compile`'s holds."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = [one for one in modules if isinstance(one, SegmentationModel)]
    if len(found) != 1:
        raise TypeError(
            f"got a {type(model).__name__} that holds {len(found)} networks of segmodels; expected "
            "one: pass what load_model or the constructor of a network gives"
        )
    return found[0]


def resize_probabilities(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w) -> (C, H, W), bilinear, antialiased where it shrinks."""
    resized = interpolate(values[None], size=size, mode="bilinear", antialias=True)[0]
    return resized.clamp(min=0)
