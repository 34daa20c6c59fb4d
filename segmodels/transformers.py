"""Integration with transformers: importing this module registers the networks with its Auto
classes.

Requires the extra `transformers`. The classes are defined here, so no remote code is executed.

Examples:
    >>> import segmodels.transformers
    >>> from transformers import pipeline
    >>> segment = pipeline("image-segmentation", model="weights_card/unet-camvid")  # doctest: +SKIP
    >>> [region["label"] for region in segment("street.jpg")]  # doctest: +SKIP
    ['sky', 'building', 'road', 'car']
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_utils import ImageInput, make_flat_list_of_images
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from segmodels.data.image_io import read_image
from segmodels.data.resizing import resize_image
from segmodels.inference._upsample import FullSize
from segmodels.inference.segmenter import resize_probabilities
from segmodels.inference.tiling import with_context
from segmodels.models._config import constructor_arguments
from segmodels.models.base import TRANSFORMERS_TYPE, SegmentationModel, load_model
from segmodels.models.registry import model_classes

IGNORE_INDEX = 255
# Arguments of `from_pretrained` that are passed on to `load_model`.
LOADING = ("subfolder", "revision", "token", "cache_dir", "force_download", "local_files_only")


class SegmodelsConfig(PreTrainedConfig):
    """Contents of `config.json`: the constructor's arguments by name."""

    model_type = TRANSFORMERS_TYPE


class SegmodelsForSemanticSegmentation(PreTrainedModel):
    """Wrapper that gives any of the networks the interface of transformers.

    Args:
        config: The config, as read by `SegmodelsConfig.from_pretrained`.
        network: The network to wrap; None: create it from the config, with random weights.
    """

    config_class = SegmodelsConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SegmodelsConfig, network: SegmentationModel | None = None) -> None:
        super().__init__(config)
        self.network = _new_network(config) if network is None else network
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: the networks initialise their own weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *_: Any,
        config: SegmodelsConfig | None = None,
        dtype: str | torch.dtype | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a network as `segmodels.load_model` does: strict, safetensors only.

        Args:
            pretrained_model_name_or_path: Folder, Hub id or short name.
            config: The network's config; None: that of the loaded network.
            dtype: Dtype of the parameters; "auto" and None: float32.
            **kwargs: subfolder, revision, token, cache_dir, force_download and local_files_only, as
                in `load_model`; others are ignored.

        Raises:
            CheckpointError: If the network cannot be loaded.
        """
        loading = {key: kwargs[key] for key in LOADING if kwargs.get(key)}
        network = load_model(pretrained_model_name_or_path, **loading)
        config = config or SegmodelsConfig.from_dict(network.config)
        model = cls(config, network).eval()
        if dtype not in (None, "auto"):
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the network as `SegmentationModel.save_pretrained` does."""
        self.network.save_pretrained(save_directory)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> SemanticSegmenterOutput:
        """Compute the logits and, given labels, the loss.

        Args:
            pixel_values: Normalised float (N, C, H, W), from `SegmodelsImageProcessor`.
            labels: Class ids (N, H, W); 255 is ignored.

        Returns:
            `logits` (N, num_classes, H, W), and `loss`, the mean cross entropy, or None.
        """
        height, width = pixel_values.shape[-2:]
        region, inside = with_context(self.network, pixel_values, slice(0, height), slice(0, width))
        logits = self.network(region)[(..., *inside)]
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE_INDEX)
        return SemanticSegmenterOutput(loss=loss, logits=logits)


class SegmodelsImageProcessor(BaseImageProcessor):
    """Preprocesses images and converts logits to class maps, both as `Segmenter` does.

    Args:
        size: {"longest_edge": pixels}; None: images are not resized.
        minimum_size: Without `size`, the longer side, in pixels, that smaller images are enlarged
            to; None: they are not.
        image_mean: Mean of each channel, for pixels in [0, 1].
        image_std: Standard deviation of each channel, for pixels in [0, 1].
        **kwargs: Further entries of `preprocessor_config.json`.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  # as declared in the base class

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.25, 0.25, 0.25),
        minimum_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.minimum_size = minimum_size
        self.size = None if size is None else dict(size)
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(
        self, images: ImageInput, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Resize and normalise an image, or a batch of images of the same size.

        Args:
            images: Image or list of images: PIL, or uint8 arrays (H, W) or (H, W, 3).
            return_tensors: As in transformers.

        Returns:
            `pixel_values` (N, C, h, w), normalised float32.

        Raises:
            PictureError: If an image has another type, dtype or shape.
            ValueError: If the resized images differ in size.
        """
        flat = cast(list[Any], make_flat_list_of_images(images))
        arrays = [self._preprocess(image) for image in flat]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ValueError(
                "the images of a batch must have the same size after resizing, got shapes "
                f"{', '.join(map(str, shapes))}: preprocess them one by one"
            )
        return BatchFeature({"pixel_values": np.stack(arrays)}, tensor_type=return_tensors)

    def _preprocess(self, image: Any) -> np.ndarray:
        rgb = read_image(image)
        side = self.size["longest_edge"] if self.size else max(*rgb.size, self.minimum_size or 1)
        mode = "RGB" if len(self.image_mean) == 3 else "L"
        pixels = np.asarray(resize_image(rgb, side).convert(mode))
        values = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1)
        mean, std = torch.tensor(self.image_mean), torch.tensor(self.image_std)
        return ((values.float() / 255 - mean[:, None, None]) / std[:, None, None]).numpy()

    def post_process_semantic_segmentation(
        self,
        outputs: SemanticSegmenterOutput,
        target_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Tensor]:
        """Convert logits to class maps as `Segmenter` does: the argmax of the probabilities
        interpolated to the image's size.

        Args:
            outputs: Output of the model.
            target_sizes: (height, width) of each image; None: the size of the logits.

        Returns:
            Class map (height, width) of each image, int64.
        """
        probabilities = outputs["logits"].detach().float().softmax(1).cpu()
        sizes = target_sizes or [tuple(probabilities.shape[-2:])] * len(probabilities)
        return [_class_map(one, size) for one, size in zip(probabilities, sizes, strict=True)]


def _class_map(probabilities: Tensor, size: Sequence[int]) -> Tensor:
    working, full = (probabilities.shape[-2], probabilities.shape[-1]), (int(size[0]), int(size[1]))
    if working[0] > full[0] or working[1] > full[1]:
        probabilities, working = resize_probabilities(probabilities, full), full
    upsampler = FullSize(working, full)
    upsampler.fill(probabilities, slice(0, working[0]), slice(0, working[1]))
    return torch.from_numpy(upsampler.class_map()).long()


def _new_network(config: SegmodelsConfig) -> SegmentationModel:
    """Create the network that the config describes, with random weights."""
    known = {model_class.__name__: model_class for model_class in model_classes()}
    names = [name for name in config.architectures or [] if name in known]
    if len(names) != 1:
        raise ValueError(
            f"architectures must name one of {', '.join(known)}, got {config.architectures}"
        )
    network = known[names[0]]
    arguments = {
        name: getattr(config, name)
        for name in constructor_arguments(network)
        if hasattr(config, name)
    }
    return network(**arguments)


AutoConfig.register(TRANSFORMERS_TYPE, SegmodelsConfig)
AutoModelForSemanticSegmentation.register(SegmodelsConfig, SegmodelsForSemanticSegmentation)
AutoImageProcessor.register(
    SegmodelsConfig, image_processor_classes={"pil": SegmodelsImageProcessor}
)
# The image-segmentation pipeline accepts only models registered in this mapping.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[TRANSFORMERS_TYPE] = (
    SegmodelsForSemanticSegmentation.__name__
)
