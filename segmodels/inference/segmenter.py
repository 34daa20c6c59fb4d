"""The segmenter: from images to input tensors, and from logits to class maps."""

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
from segmodels.inference._oom import Result, first_that_fits, on_cpu
from segmodels.inference._upsample import FullSize
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.mc_dropout import seeded_dropout, with_sampled_dropout
from segmodels.inference.optimize import pick_device, pick_precision, precision_of, prepared
from segmodels.inference.results import Segmentation
from segmodels.inference.tiling import smallest_tile_size, tiles, with_context
from segmodels.models.base import SegmentationModel

Logits = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> logits (N, num_classes, h, w)

# Rows and columns of a part of the image; its probabilities (num_classes, r, c), plus the next row
# and column if there are any (see `FullSize.fill`); their variance (r, c) over the Monte Carlo
# samples, or None.
Part = tuple[slice, slice, Tensor, Tensor | None]


class Segmenter:
    """Segments images with a network, prepared for inference on a device and in a precision.

    Calls are thread-safe and have no side effects. If the device runs out of memory, an image is
    segmented in smaller tiles or, if that fails as well, on the CPU; `note` of the result says so.

    Args:
        model: One of the networks, possibly wrapped by `torch.compile`, `DataParallel` or
            `DistributedDataParallel`. It is copied, not modified.
        device: "auto" (CUDA, then MPS, then CPU) or a torch device.
        precision: Precision of the forward pass: "fp32", "bf16", "fp16" or "auto". "auto" depends
            only on the hardware: bf16 on CUDA and on CPUs where it is faster than fp32 (see
            `segmodels.utils.cpu`), fp16 on MPS and on CUDA devices without bf16, fp32 elsewhere.
            Probabilities are always float32.
        tile_size: Images with more than tile_size x tile_size pixels at the working size are
            segmented in tiles, with enough context on each side to avoid seams.
        max_pixels: Images with more pixels are rejected before they are decoded.

    Attributes:
        model: The original network.
        device: The torch device.
        dtype: The torch dtype of the forward pass.
        network: The copy that is prepared for inference.

    Raises:
        TypeError: If `model` is neither one of the networks nor contains exactly one.
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
        self.model = _unwrap(model)
        if tile_size <= 2 * self.model.tile_context:
            least = 2 * self.model.tile_context
            raise ValueError(
                f"tile_size must be more than {least} pixels, twice the network's context, "
                f"got {tile_size}"
            )
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.tile_size = tile_size
        self.max_pixels = max_pixels
        self._set_network(prepared(self.model, self.device, self.dtype))

    @property
    def precision(self) -> str:
        """Precision of the forward pass: "fp32", "bf16" or "fp16"."""
        return precision_of(self.dtype)

    def __call__(
        self,
        image: Picture | DecodedImage,
        *,
        working_size: int | None = None,
        samples: int = 0,
    ) -> Segmentation:
        """Segment an image.

        Args:
            image: A path, a PIL image, a uint8 array (H, W), (H, W, 3) or (H, W, 4), or a
                `DecodedImage`. If the number of input channels is not 1 or 3: a path (multispectral
                TIFF, .npy) or a uint8 array (H, W, in_channels).
            working_size: Longer side, in pixels, that the image is resized to for the network.
                None: that of the network if it has one, else no resizing.
            samples: Number of Monte Carlo samples, for networks with dropout (Bayesian SegNet): the
                result is the mean of their probabilities, with `uncertainty`. It is reproducible
                for the same `torch.manual_seed`. 0: a single pass without dropout.

        Returns:
            The segmentation, at the size of the image.

        Raises:
            PictureError: If the image cannot be read, or there is not enough memory.
            ValueError: If `working_size` or `samples` is out of range, or there are `samples` but
                the network has no dropout.
        """

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            return segmenter._tiled(pixels, samples)

        return self._segment(image, working_size, parts)

    def segment_batch(self, images: Sequence[DecodedImage], pixels: Tensor) -> list[Segmentation]:
        """Segment several images in one forward pass or, if they require tiles, one by one.

        Args:
            images: The images.
            pixels: (N, in_channels, h, w) uint8, the results of `pixels` for all of them.
        """

        def compute(segmenter: Segmenter) -> list[Segmentation]:
            batch = zip(images, pixels.split(1), segmenter._in_one_pass(pixels), strict=True)
            return [segmenter._result(*arguments) for arguments in batch]

        results, note = self._with_fallbacks(compute)
        return [replace(result, note=note) for result in results]

    def at_stride(
        self, image: Picture | DecodedImage, stride: int, *, working_size: int | None = None
    ) -> Segmentation:
        """Segment an image with an FCN, without the skips that are finer than a prediction stride.

        Args:
            image: As for `__call__`.
            stride: One of the network's `prediction_strides`, 32, 16 or 8.
            working_size: As for `__call__`.

        Raises:
            ValueError: If the network has no such prediction stride.
        """
        if stride not in self.model.prediction_strides:
            self.model.at_stride(torch.empty(0), stride)  # raises ValueError

        def parts(segmenter: Segmenter, pixels: Tensor) -> Iterator[Part]:
            model = cast(SegmentationModel, segmenter.network)
            network = partial(model.at_stride, stride=stride)
            return segmenter._tiled(pixels, samples=0, network=network)

        return self._segment(image, working_size, parts)

    def probabilities(
        self, image: Picture | DecodedImage, *, working_size: int | None = None
    ) -> NDArray[np.float32]:
        """Compute the class probabilities at the working size: pixel-wise softmax (U-Net, section
        3).

        Args:
            image: As for `__call__`.
            working_size: As for `__call__`.

        Returns:
            (num_classes, H, W) float32 in [0, 1]; the probabilities of each pixel sum to 1.
        """
        pixels = self.pixels(self._decoded(image), working_size)
        return self._with_fallbacks(lambda segmenter: segmenter._whole_image(pixels))[0].numpy()

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
        """Segment an image; `parts` computes the probabilities of its pixels part by part."""
        decoded = self._decoded(image)

        def compute(segmenter: Segmenter) -> Segmentation:
            pixels = segmenter.pixels(decoded, working_size)
            return segmenter._result(decoded, pixels, parts(segmenter, pixels))

        result, note = self._with_fallbacks(compute)
        return replace(result, note=note)

    def _with_fallbacks(
        self, compute: Callable[["Segmenter"], Result]
    ) -> tuple[Result, str | None]:
        """Call `compute` with this segmenter or, if memory runs out, with one that needs less.

        Returns:
            The result, and a note for the user or None.
        """
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
        moved._set_network(on_cpu(self.network))
        return moved

    def _set_network(self, network: nn.Module) -> None:
        self.network = network
        self._input_dtype = next(network.parameters()).dtype
        self._sampling_network = with_sampled_dropout(network)

    def _result(self, image: DecodedImage, pixels: Tensor, parts: Iterator[Part]) -> Segmentation:
        """Create the result at the size of the image from parts at the working size."""
        size = (image.image.height, image.image.width)
        working = (pixels.shape[-2], pixels.shape[-1])
        variance: Tensor | None = None
        if working[0] > size[0] or working[1] > size[1]:
            probabilities, variance = self._assembled(working, parts)
            upsampler = FullSize(size, size)
            upsampler.fill(
                resize_probabilities(probabilities, size), slice(0, size[0]), slice(0, size[1])
            )
        else:  # part by part, so that only the probabilities of one tile are in memory at a time
            upsampler = FullSize(working, size)
            for rows, columns, probabilities, spread in parts:
                upsampler.fill(probabilities, rows, columns)
                if spread is not None:
                    variance = torch.empty(working) if variance is None else variance
                    variance[rows, columns] = spread
        return Segmentation(
            image=image.image,
            class_map=upsampler.class_map(),
            make_confidence=upsampler.confidence,
            class_names=self.model.class_names,
            palette=self.model.palette,
            uncertainty=None
            if variance is None
            else resize_probabilities(variance[None], size)[0].numpy(),
        )

    def _whole_image(self, pixels: Tensor) -> Tensor:
        """Compute the probabilities (num_classes, h, w) of a whole image."""
        working = (pixels.shape[-2], pixels.shape[-1])
        return self._assembled(working, self._tiled(pixels, samples=0))[0]

    def _assembled(
        self, working: tuple[int, int], parts: Iterator[Part]
    ) -> tuple[Tensor, Tensor | None]:
        """Assemble the probabilities (num_classes, h, w) of an image, and their variance (h, w) if
        there are Monte Carlo samples, from its parts."""
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
        """Compute the parts of each image of a batch, in one forward pass unless it needs tiles."""
        height, width = pixels.shape[-2:]
        if height * width > self.tile_size**2:
            return [self._tiled(one, samples=0) for one in pixels.split(1)]
        whole = slice(0, height), slice(0, width)
        batch = self._probabilities(self.network, pixels, *whole)
        return [iter([(*whole, probabilities, None)]) for probabilities in batch]

    def _tiled(self, pixels: Tensor, samples: int, network: Logits | None = None) -> Iterator[Part]:
        """Compute the tiles of an image, with `network` or by default that of the segmenter."""
        self._check_samples(samples)
        height, width = pixels.shape[-2:]
        for rows, columns in tiles(height, width, self.tile_size, self.model.tile_context):
            # One more row and column, to interpolate between this tile and the next.
            more_rows = slice(rows.start, min(rows.stop + 1, height))
            more_columns = slice(columns.start, min(columns.stop + 1, width))
            if samples:
                mean, variance = self._sampled(pixels, more_rows, more_columns, samples)
                own = variance[: rows.stop - rows.start, : columns.stop - columns.start]
                yield rows, columns, mean, own
            else:
                probabilities = self._probabilities(
                    network or self.network, pixels, more_rows, more_columns
                )
                yield rows, columns, probabilities[0], None

    @torch.inference_mode()
    def _probabilities(
        self, network: Logits, pixels: Tensor, rows: slice, columns: slice
    ) -> Tensor:
        """Compute the probabilities of a part of each image, (N, num_classes, r, c) float32 on the
        CPU."""
        region, inside = with_context(self.model, pixels, rows, columns)
        logits = network(self.values(region))[(..., *inside)]
        return logits.float().softmax(1).cpu()

    def _check_samples(self, samples: int) -> None:
        if samples < 0:
            raise ValueError(f"samples must be 0 (off) or more, got {samples}")
        if samples and not self.model.has_dropout:
            raise ValueError(
                f"samples require a network with dropout, but this {type(self.model).__name__} has "
                "none: omit samples, or train with dropout, such as 0.5"
            )

    def _sampled(
        self, pixels: Tensor, rows: slice, columns: slice, samples: int
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean (num_classes, r, c) of the sampled probabilities, and their variance
        (r, c) over the samples, averaged over the classes."""
        mean, squares = torch.zeros(()), torch.zeros(())
        with seeded_dropout(self.device):
            for number in range(1, samples + 1):  # Welford's algorithm for mean and variance
                sample = self._probabilities(self._sampling_network, pixels, rows, columns)[0]
                deviation = sample - mean
                mean = mean + deviation / number
                squares = squares + deviation * (sample - mean)
        return mean, (squares / samples).mean(0)

    # ---- preprocessing ----

    def pixels(self, image: DecodedImage, working_size: int | None = None) -> Tensor:
        """Resize an image to the working size.

        Args:
            image: The image.
            working_size: As for `__call__`.

        Returns:
            (1, in_channels, h, w) uint8.

        Raises:
            PictureError: If the image has another number of channels than the network.
            ValueError: If `working_size` is less than 1.
        """
        size = working_size or self.model.longer_side_for(image.image.size)
        if size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
        return image.pixels(size, self.model.in_channels)

    def values(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 (N, in_channels, h, w), in the device, dtype and memory format of the
        network."""
        values = normalise(pixels.to(self.device).float() / 255, self.model)
        return values.to(self._input_dtype, memory_format=torch.channels_last)


def normalise(pixels: Tensor, model: SegmentationModel) -> Tensor:
    """Normalise (N, C, H, W) in [0, 1] by `image_mean` and `image_std` of the model."""
    mean = torch.tensor(model.image_mean, device=pixels.device)[:, None, None]
    std = torch.tensor(model.image_std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def _unwrap(model: nn.Module) -> SegmentationModel:
    """The network, without wrappers such as that of `torch.compile`."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = [one for one in modules if isinstance(one, SegmentationModel)]
    if len(found) != 1:
        raise TypeError(
            f"got a {type(model).__name__} containing {len(found)} segmodels networks, expected "
            "one: pass the result of load_model or of a network's constructor"
        )
    return found[0]


def resize_probabilities(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, h, w) to (C, H, W), bilinear with antialiasing."""
    resized = interpolate(values[None], size=size, mode="bilinear", antialias=True)[0]
    return resized.clamp(min=0)
