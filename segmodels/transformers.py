"""A bridge to transformers: importing this module registers the networks with its Auto classes.

Requires the extra `transformers`. No remote code is needed: the classes are these here.

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
# Arguments of `from_pretrained` that `load_model` has too.
LOADING = ("subfolder", "revision", "token", "cache_dir", "force_download", "local_files_only")


class SegmodelsConfig(PreTrainedConfig):
    """`config.json` of a network: the constructor's arguments under their names."""

    model_type = TRANSFORMERS_TYPE


class SegmodelsForSemanticSegmentation(PreTrainedModel):
    """Any of the networks behind the interface of transformers.

    Args:
        config: As `SegmodelsConfig.from_pretrained` reads it.
        network: A network to wrap; None: a new one with random weights, of the config.
    """

    config_class = SegmodelsConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SegmodelsConfig, network: SegmentationModel | None = None) -> None:
        super().__init__(config)
        self.network = _new_network(config) if network is None else network
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The networks initialise themselves."""

    @classmethod
    def from_pretrained(  # type: ignore[override]  # few of the library's options apply
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
            config: Its config, if it has been read already.
            dtype: Of the parameters; "auto" and None: float32.
            **kwargs: subfolder, revision, token, cache_dir, force_download and local_files_only, as
                in `load_model`; others are ignored.

        Raises:
            CheckpointError: If it cannot be loaded.
        """
        loading = {key: kwargs[key] for key in LOADING if kwargs.get(key)}
        network = load_model(pretrained_model_name_or_path, **loading)
        config = config or SegmodelsConfig.from_dict(network.config)
        model = cls(config, network).eval()
        if dtype not in (None, "auto"):
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Write the network's folder as `SegmentationModel.save_pretrained` does."""
        self.network.save_pretrained(save_directory)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> SemanticSegmenterOutput:
        """Compute the logits, and the loss where there are labels.

        Args:
            pixel_values: Normalised float (N, C, H, W), of `SegmodelsImageProcessor`.
            labels: Class ids (N, H, W); 255 is not judged.

        Returns:
            `logits` (N, num_classes, H, W) and `loss`, the mean cross entropy.
        """
        height, width = pixel_values.shape[-2:]
        region, inside = with_context(self.network, pixel_values, slice(0, height), slice(0, width))
        logits = self.network(region)[(..., *inside)]
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE_INDEX)
        return SemanticSegmenterOutput(loss=loss, logits=logits)


class SegmodelsImageProcessor(BaseImageProcessor):
    """Prepares images as `Segmenter` does, and turns logits into class maps.

    Args:
        size: {"longest_edge": pixels}, or None: images are not resized.
        image_mean: One number per channel, for pixels in [0, 1].
        image_std: One number per channel, for pixels in [0, 1].
        **kwargs: Further entries of `preprocessor_config.json`.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  # the library's

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.25, 0.25, 0.25),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = None if size is None else dict(size)
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(
        self, images: ImageInput, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Prepare images of one size, or one image.

        Args:
            images: Image or list of images: PIL, or uint8 arrays (H, W) or (H, W, 3).
            return_tensors: As in transformers.

        Returns:
            `pixel_values` (N, C, h, w), normalised float32.

        Raises:
            PictureError: For something that is not such an image.
            ValueError: For images that have different sizes once resized.
        """
        flat = cast(list[Any], make_flat_list_of_images(images))
        prepared = [self._prepare(image) for image in flat]
        if len({one.shape for one in prepared}) > 1:
            raise ValueError("images of one batch must have one size: prepare them one by one")
        return BatchFeature({"pixel_values": np.stack(prepared)}, tensor_type=return_tensors)

    def _prepare(self, image: Any) -> np.ndarray:
        rgb = read_image(image)
        side = self.size["longest_edge"] if self.size else max(rgb.size)
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
        """Turn logits into class maps, as `Segmenter` does: the argmax of the probabilities
        interpolated to the image's size.

        Args:
            outputs: Of the model.
            target_sizes: (height, width) of each image; None: the size of the logits.

        Returns:
            Class ids (height, width) of each image.
        """
        probabilities = outputs["logits"].detach().float().softmax(1).cpu()
        sizes = target_sizes or [tuple(probabilities.shape[-2:])] * len(probabilities)
        return [_class_map(one, size) for one, size in zip(probabilities, sizes, strict=True)]


def _class_map(probabilities: Tensor, size: Sequence[int]) -> Tensor:
    working, full = (probabilities.shape[-2], probabilities.shape[-1]), (int(size[0]), int(size[1]))
    if working[0] > full[0] or working[1] > full[1]:
        probabilities, working = resize_probabilities(probabilities, full), full
    answer = FullSize(working, full)
    answer.fill(probabilities, slice(0, working[0]), slice(0, working[1]))
    return torch.from_numpy(answer.class_map()).long()


def _new_network(config: SegmodelsConfig) -> SegmentationModel:
    """The network that the config describes, with random weights."""
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
# The pipeline accepts only models whose names are in this table.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[TRANSFORMERS_TYPE] = (
    SegmodelsForSemanticSegmentation.__name__
)
