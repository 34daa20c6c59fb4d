"""The base class of the networks: config, saving, and strict loading of untrusted files.

A repository or folder contains `config.json` (the class and its constructor arguments) and
`model.safetensors`. Pickles are neither written nor read.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor, nn

from segmodels.hub.checkpoint import CheckpointError, max_weights_bytes, read_weights
from segmodels.hub.download import Download, Folder, HubRepository, from_repository
from segmodels.hub.filenames import (
    CARD_NAME,
    COMPANIONS,
    CONFIG_NAME,
    PREPROCESSOR_NAME,
    WEIGHTS_NAME,
)
from segmodels.hub.upload import copy_files, push_folder
from segmodels.models._config import (
    FORMAT_VERSION,
    MAX_CONFIG_BYTES,
    build,
    constructor_arguments,
    read_config,
    unknown_entries,
)
from segmodels.models._validation import (
    MAX_IN_CHANNELS,
    MAX_WORKING_SIZE,
    checked_class_names,
    checked_int,
    checked_palette,
    checked_statistic,
)
from segmodels.models.registry import model_classes
from segmodels.utils.palette import palette_for

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TRANSFORMERS_TYPE = "segmodels"  # `model_type` of config.json, see `segmodels.transformers`


@dataclass(frozen=True)
class Paper:
    """The publication of a network.

    Attributes:
        authors: As cited in text, "Long, Shelhamer and Darrell".
        published: Year and month, "2015-06"; networks are listed in this order.
        url: URL of the paper.
        year: Year of publication.
    """

    authors: str
    published: str
    url: str

    @property
    def year(self) -> int:
        return int(self.published[:4])

    @property
    def citation(self) -> str:
        """A link in Markdown: "[Long, Shelhamer and Darrell, 2015](https://...)"."""
        return f"[{self.authors}, {self.year}]({self.url})"


class SegmentationModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="segmodels",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation"],
):
    """A network with its class names, their colours and the normalisation of its input.

    A subclass implements `forward`, passes these arguments on, stores each additional argument as
    an attribute of the same name, and overrides the members below as needed.

    Args:
        class_names: The classes in the order of their ids, at most 255.
        in_channels: Number of input channels.
        palette: [r, g, b] in 0..255 for each class; None: `utils.palette.palette_for`.
        image_mean: One number per channel, for pixels in [0, 1]; None: ImageNet's for three
            channels, else 0.5.
        image_std: One number per channel, for pixels in [0, 1]; None: ImageNet's for three
            channels, else 0.25.
        working_size: The longer side, in pixels, of the images that the network was trained on;
            None: images are not resized.
        minimum_size: Without a working size, the longer side, in pixels, that smaller images are
            enlarged to, as in training with crops larger than the images; None: they are not.

    Raises:
        ValueError: For an argument of the wrong type or out of range.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "paper" in vars(cls):
            kwargs = {"paper_url": cls.paper.url, "tags": [cls.__name__.lower()]} | kwargs
        super().__init_subclass__(**kwargs)

    # ---- properties of a network ----

    architecture: ClassVar[str]  # short name, set by `register_model`
    paper: ClassVar[Paper]
    # Peak learning rates for AdamW: of a pretrained encoder, and of all other layers.
    default_learning_rates: ClassVar[tuple[float, float]] = (2e-4, 1e-3)
    # Pixels of context on each side of a tile: more than half the receptive field. That of FCN-8s
    # is the largest: 202 for pool5 and fc6, plus half a kernel for each deconvolution.
    tile_context: int = 288

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int,
        palette: Sequence[Sequence[int]] | None,
        image_mean: Sequence[float] | None,
        image_std: Sequence[float] | None,
        working_size: int | None,
        minimum_size: int | None = None,
    ) -> None:
        super().__init__()
        self.class_names = checked_class_names(class_names)
        self.in_channels = checked_int("in_channels", in_channels, MAX_IN_CHANNELS)
        if palette is None:
            palette = palette_for(self.class_names)
        if image_mean is None:
            image_mean = IMAGENET_MEAN if in_channels == 3 else [0.5] * in_channels
        if image_std is None:
            image_std = IMAGENET_STD if in_channels == 3 else [0.25] * in_channels
        self.palette = checked_palette(palette, self.num_classes)
        self.image_mean = checked_statistic("image_mean", image_mean, in_channels, minimum=-1e6)
        self.image_std = checked_statistic("image_std", image_std, in_channels, minimum=1e-6)
        if working_size is not None:
            working_size = checked_int("working_size", working_size, MAX_WORKING_SIZE)
        if minimum_size is not None:
            minimum_size = checked_int("minimum_size", minimum_size, MAX_WORKING_SIZE)
        self.working_size = working_size
        self.minimum_size = minimum_size
        self._source: Path | None = None  # the folder that the weights were loaded from

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def longer_side_for(self, size: tuple[int, int]) -> int:
        """The longer side, in pixels, that an image of this (width, height) is resized to."""
        return self.working_size or max(*size, self.minimum_size or 1)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.class_names))

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.class_names)}

    @property
    def display_name(self) -> str:
        """The name of the network in its paper, such as "FCN-8s"."""
        return type(self).__name__

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def has_dropout(self) -> bool:
        """Whether the network has dropout, so that Monte Carlo samples differ."""
        return bool(getattr(self, "dropout", 0))

    @property
    def keeps_size(self) -> bool:
        """Whether the logits have the size of the input; if not, see `input_size_for`."""
        return True

    def input_size_for(self, output_size: int) -> tuple[int, int]:
        """Compute the input size required for a given size of the logits; equal if `keeps_size`.

        Args:
            output_size: Number of rows (or columns) of the logits.

        Returns:
            Number of input rows that give at least as many rows of logits, and the offset of the
            first row of the logits in the input.
        """
        return output_size, 0

    @property
    def prediction_strides(self) -> tuple[int, ...]:
        """The strides that `at_stride` accepts, coarsest first; empty for most networks."""
        return ()

    def at_stride(self, pixels: Tensor, stride: int) -> Tensor:
        """Compute the logits without the skips that are finer than a prediction stride.

        Args:
            pixels: As for `forward`.
            stride: One of `prediction_strides`, in pixels.

        Raises:
            ValueError: If the network has no such prediction stride.
        """
        raise ValueError(
            f"{self.display_name} has no prediction strides (only FCN has them); got {stride}"
        )

    def float32_layers(self) -> dict[str, str]:
        """Return the layers that stay in float32 during inference in bfloat16.

        Returns:
            {name of the layer: name of the following layer, whose input is cast to bfloat16}.
        """
        return {}

    @classmethod
    def arguments_from(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Select the constructor's arguments from training options.

        Args:
            options: Options by name, for example `asdict` of a `TrainingConfig`.

        Returns:
            The options that are arguments of this network and not None, without `class_names`.
        """
        names = constructor_arguments(cls)
        return {
            name: options[name]
            for name in names
            if name != "class_names" and options.get(name) is not None
        }

    def fixed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are not trained."""
        return []

    def learning_rate_factors(self, options: Mapping[str, Any]) -> dict[nn.Parameter, float]:
        """Return the parameters with individual learning rates.

        Args:
            options: Training options by name.

        Returns:
            For each of them, its factor on the decoder's learning rate.
        """
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`: constructor arguments, and entries for other tools."""
        return {
            "architectures": [type(self).__name__],
            "model_type": TRANSFORMERS_TYPE,
            "segmodels_format": FORMAT_VERSION,
            "id2label": {str(index): name for index, name in self.id2label.items()},
            "label2id": self.label2id,
            **{name: getattr(self, name) for name in constructor_arguments(type(self))},
        }

    @property
    def preprocessor_config(self) -> dict[str, Any]:
        """The content of `preprocessor_config.json`, for tools that use transformers' format.

        It is derived from `config` and not read by segmodels. It has no `image_processor_type`,
        since none of the processors in transformers resizes by the longer side only.
        """
        return {
            "do_resize": (self.working_size or self.minimum_size) is not None,
            "size": None if self.working_size is None else {"longest_edge": self.working_size},
            **({} if self.minimum_size is None else {"minimum_size": self.minimum_size}),
            "resample": 2,  # PIL's constant for bilinear
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
        }

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `preprocessor_config.json`, `model.safetensors` and a model card.

        All files are written completely before the first is moved into place, so an interruption
        never leaves a partial file. An existing README.md is kept.

        Args:
            save_directory: The folder, created if necessary.
            config: Additional entries of `config.json`; unknown ones are stored in its entry
                "extra".
            repo_id: Repository for `push_to_hub`; None: named like the folder.
            push_to_hub: Whether to upload the files as well.
            model_card_kwargs: For a new model card, as in `PyTorchModelHubMixin`.
            dtype: Dtype of the floating-point weights in the file, such as float16; None:
                unchanged.
            **push_to_hub_kwargs: As in `push_to_hub`.

        Returns:
            The URL of the commit with `push_to_hub`, else None.

        Raises:
            CheckpointError: If a weight is not finite in that dtype; no file is written then.

        Examples:
            >>> import tempfile
            >>> from segmodels import UNet, load_model
            >>> model = UNet(class_names=["cell", "background"], base_channels=4)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_pretrained(folder)
            ...     load_model(folder).class_names
            ['cell', 'background']
        """
        entries = self.config | (config or {})
        unknown = unknown_entries(type(self), entries)
        if unknown:
            extra = {key: entries.pop(key) for key in unknown}
            entries["extra"] = entries.get("extra", {}) | extra
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            scratch = Path(name)
            self._save_weights(scratch / WEIGHTS_NAME, dtype)
            _write_json(scratch / CONFIG_NAME, entries)
            _write_json(scratch / PREPROCESSOR_NAME, self.preprocessor_config)
            # save_file creates files with mode 600 regardless of the umask.
            shutil.copymode(scratch / CONFIG_NAME, scratch / WEIGHTS_NAME)
            if not (folder / CARD_NAME).exists():
                card = self.generate_model_card(**(model_card_kwargs or {}))
                card.save(scratch / CARD_NAME)
            for file in scratch.iterdir():
                file.replace(folder / file.name)
        if not push_to_hub:
            return None
        return push_folder(folder, repo_id or folder.resolve().name, **push_to_hub_kwargs).url

    def push_to_hub(  # type: ignore[override]  # with `dtype`
        self,
        repo_id: str,
        *,
        config: dict[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str:
        """Upload the network to a Hub repository in one commit.

        If the weights have not changed since loading, the original weights file and model card,
        including its metrics, are uploaded. Otherwise an existing card in the repository is kept,
        or a new one is created.

        Args:
            repo_id: "org/name", created if necessary.
            config: As in `save_pretrained`.
            dtype: As in `save_pretrained`.
            model_card_kwargs: As in `save_pretrained`.
            **push_to_hub_kwargs: token, private, branch, create_pr, commit_message,
                allow_patterns, ignore_patterns, delete_patterns, as in `upload.push_folder`.

        Returns:
            The URL of the commit, or of the latest one if nothing has changed.

        Raises:
            PushError: If the upload fails.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / repo_id.rpartition("/")[2]
            source = self._source if self._is_as_loaded() else None
            if source is not None:
                copy_files(source, folder, [CARD_NAME, *COMPANIONS])
            kwargs = {"replace_card": (folder / CARD_NAME).exists(), **push_to_hub_kwargs}
            self.save_pretrained(
                folder, config=config, dtype=dtype, model_card_kwargs=model_card_kwargs
            )
            if source is not None and dtype is None:
                copy_files(source, folder, [WEIGHTS_NAME])
            return push_folder(folder, repo_id, **kwargs).url

    def _is_as_loaded(self) -> bool:
        if self._source is None:
            return False
        state = self.state_dict()
        try:
            saved = read_weights(self._source / WEIGHTS_NAME, state, "cpu", strict=True)
        except CheckpointError:
            return False
        return all(torch.equal(saved[name], state[name].cpu()) for name in saved)

    def _save_weights(self, path: Path, dtype: torch.dtype | None) -> None:
        tensors = {}
        for name, tensor in self.state_dict().items():
            target = dtype if tensor.is_floating_point() and dtype is not None else tensor.dtype
            tensors[name] = tensor.detach().to("cpu", target).contiguous()
            if not torch.isfinite(tensors[name]).all():
                raise CheckpointError(
                    f"{name} has values that are not finite as {target}; nothing was saved"
                )
        save_file(tensors, path, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(  # type: ignore[override]  # strict, and without the mixin's **model_kwargs
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
    ) -> Self:
        """Load a network from a Hub repository or a folder.

        Args:
            pretrained_model_name_or_path: Folder, Hub id ("org/name") or short name (see
                `list_models`).
            subfolder: Folder inside the repository or the folder.
            revision: Branch, tag or commit; None: main.
            token: Access token; None: the one of `hf auth login`; False: none.
            cache_dir: Folder of the Hub cache; None: the default of huggingface_hub.
            force_download: Download files even if they are cached.
            local_files_only: Use only cached files.
            map_location: Device of the parameters.
            strict: Require exactly the expected weights and shapes; False loads the weights that
                fit and leaves the others randomly initialised.

        Returns:
            The network in evaluation mode, with parameters in float32 (the default dtype). If the
            Hub is unavailable, cached files are used and a warning is logged.

        Raises:
            CheckpointError: If the repository, folder or file does not exist or contains another
                network, or if the weights do not fit or are not finite. The message names the
                file.
        """
        download: Download = {
            "subfolder": subfolder,
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        return from_repository(
            str(pretrained_model_name_or_path),
            download,
            lambda files: cls._from_files(files, map_location, strict),
        )

    @classmethod
    def _from_files(
        cls, files: Folder | HubRepository, map_location: str | torch.device, strict: bool
    ) -> Self:
        config_path = files.fetch(CONFIG_NAME, MAX_CONFIG_BYTES)
        config = read_config(config_path)
        network = cls._architecture(config, config_path)
        # "meta" avoids allocating and initialising weights that are then replaced.
        model = build(network, config, config_path, "meta")
        expected = model.state_dict()
        weights_path = files.fetch(WEIGHTS_NAME, max_weights_bytes(expected) if strict else None)
        tensors = read_weights(weights_path, expected, map_location, strict)
        if not strict:
            model = build(network, config, config_path, "cpu")
        model.load_state_dict(tensors, strict=strict, assign=True)
        model._source = weights_path.parent
        files.remember_commit()
        return model.to(map_location).eval()

    @classmethod
    def _architecture(cls, config: dict[str, Any], path: Path) -> Any:
        """The class that the config names. If there is no name (as written by the plain
        `PyTorchModelHubMixin`), the class with matching arguments, else this class."""
        known = {
            one.__name__: one for one in [cls, *model_classes()] if one is not SegmentationModel
        }
        names = config.get("architectures")
        if names is None:
            names = [name for name in known if set(_own_arguments(known[name])) & set(config)]
            names = names or [name for name in known if name == cls.__name__]
        names = names if isinstance(names, list) else [names]
        named = [known[name] for name in names if isinstance(name, str) and name in known]
        if len(named) != 1:
            raise CheckpointError(
                f"{path} describes none of {', '.join(sorted(known))} "
                f"(architectures: {short(names)})"
            )
        found = named[0]
        if not issubclass(found, cls):
            raise CheckpointError(
                f"{path} describes a {found.__name__}, not a {cls.__name__}: "
                f"use {found.__name__}.from_pretrained or load_model"
            )
        return found


def load_model(
    pretrained_model_name_or_path: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    map_location: str | torch.device = "cpu",
    strict: bool = True,
) -> SegmentationModel:
    """Load a network from a Hub repository or a folder, whichever architecture it has.

    Args:
        pretrained_model_name_or_path: Folder, Hub id ("org/name") or short name. The short name
            "unet-camvid" stands for `weights_card/unet-camvid` in a clone, else for the repository
            of that name in the Hub organisation given by the environment variable
            SEGMODELS_HUB_ORG.
        subfolder: Folder inside the repository or the folder.
        revision: Branch, tag or commit; None: main.
        token: Access token; None: the one of `hf auth login`; False: none.
        cache_dir: Folder of the Hub cache; None: the default of huggingface_hub.
        force_download: Download files even if they are cached.
        local_files_only: Use only cached files.
        map_location: Device of the parameters.
        strict: As in `SegmentationModel.from_pretrained`.

    Returns:
        The network in evaluation mode, see `SegmentationModel.from_pretrained`.

    Raises:
        CheckpointError: If it cannot be loaded; the message names the file.
    """
    return SegmentationModel.from_pretrained(
        pretrained_model_name_or_path,
        subfolder=subfolder,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        map_location=map_location,
        strict=strict,
    )


def _own_arguments(network: type[SegmentationModel]) -> set[str]:
    """The constructor arguments that no other network has."""
    others = [one for one in model_classes() if one is not network]
    shared = {name for one in others for name in constructor_arguments(one)}
    return set(constructor_arguments(network)) - shared


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    path.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")
