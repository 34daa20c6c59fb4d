"""What the three networks share: a configuration that travels with the weights, and loading that
trusts nothing.

A repository, or a folder, holds `config.json` (the constructor's arguments and the class) and
`model.safetensors`. Pickles are neither written nor read.
"""

import inspect
import json
import math
import operator
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from huggingface_hub import HfApi, PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import nn

from .checkpoint import (
    CONFIG_NAME,
    FORMAT_VERSION,
    WEIGHTS_NAME,
    CheckpointError,
    fetch,
    read_config,
    read_weights,
)
from .palette import palette_for

MAX_CLASSES = 255  # a class id is a byte, and 255 is void
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ARCHITECTURES: dict[str, type["SegmentationModel"]] = {}

Choice = TypeVar("Choice", int, str)


class SegmentationModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="segmodels",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation"],
):
    """A network with the names and colours of its classes and the preparation of its pictures.

    class_names: the classes, in the order of their ids, at most 255.
    palette: [r, g, b] in 0..255 for each class; by default `palette.palette_for`.
    image_mean, image_std: one number a channel, for pixels in [0, 1]; by default ImageNet's for
        three channels, else 0.5 and 0.25.
    working_size: the longer side, in pixels, of the pictures that the network was trained on;
        None: whatever size a picture has.
    Arguments of another type or range raise ValueError.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ARCHITECTURES[cls.__name__] = cls

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int,
        palette: Sequence[Sequence[int]] | None,
        image_mean: Sequence[float] | None,
        image_std: Sequence[float] | None,
        working_size: int | None,
    ) -> None:
        super().__init__()
        self.class_names = _checked_class_names(class_names)
        self.in_channels = checked_int("in_channels", in_channels)
        if palette is None:
            palette = palette_for(self.class_names)
        if image_mean is None:
            image_mean = IMAGENET_MEAN if in_channels == 3 else [0.5] * in_channels
        if image_std is None:
            image_std = IMAGENET_STD if in_channels == 3 else [0.25] * in_channels
        self.palette = _checked_palette(palette, self.num_classes)
        self.image_mean = _checked_channels("image_mean", image_mean, in_channels)
        self.image_std = _checked_channels("image_std", image_std, in_channels)
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std must be positive, got {self.image_std}")
        self.working_size = (
            None if working_size is None else checked_int("working_size", working_size)
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.class_names))

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.class_names)}

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds: the constructor's arguments, and what other tools look for."""
        return {
            "architectures": [type(self).__name__],
            "segmodels_format": FORMAT_VERSION,
            "id2label": {str(index): name for index, name in self.id2label.items()},
            "label2id": self.label2id,
            **{name: getattr(self, name) for name in _constructor_arguments(type(self))},
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
        """Write `config.json`, `model.safetensors` and, where there is none yet, a model card.

        All are written in full before the first is moved to its place: an interruption leaves the
        old file or the new one. A README.md that is there stays.

        config: a dict of further entries of `config.json`.
        dtype: of the floating-point weights on disk, float16 for example; None keeps theirs.
        push_to_hub: upload the three files too, to `repo_id` or a repository with the folder's
            name; push_to_hub_kwargs as in the mixin's `push_to_hub`. The commit's URL is returned.
        Raises CheckpointError, and saves nothing, if a weight is not finite (in that dtype).
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as scratch:
            self._save_weights(Path(scratch) / WEIGHTS_NAME, dtype)
            text = json.dumps(self.config | (config or {}), indent=2, sort_keys=True) + "\n"
            (Path(scratch) / CONFIG_NAME).write_text(text)
            # save_file's own mode is 600, whatever the umask.
            shutil.copymode(Path(scratch) / CONFIG_NAME, Path(scratch) / WEIGHTS_NAME)
            if not (folder / "README.md").exists():
                card = self.generate_model_card(**(model_card_kwargs or {}))
                card.save(Path(scratch) / "README.md")
            for file in Path(scratch).iterdir():
                file.replace(folder / file.name)
        if not push_to_hub:
            return None
        return _upload(folder, repo_id or folder.resolve().name, **push_to_hub_kwargs)

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
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
    ) -> Self:
        """The network of a Hub repository ("org/name") or of a folder, in evaluation mode, its
        parameters in float32 (the default dtype) on `map_location`.

        strict: every weight is in the file, with its shape, and no other; False takes those that
            fit and leaves the rest as initialised.
        Raises CheckpointError, naming the file, when that is not so, when a weight is not finite,
        when the repository holds another network, or when there is no such repository, folder or
        file.
        """
        download = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        source = str(pretrained_model_name_or_path)
        config_path = fetch(source, CONFIG_NAME, download)
        config = read_config(config_path)
        found = _architecture(config, config_path)
        if not issubclass(found, cls):
            raise CheckpointError(
                f"{config_path} describes a {found.__name__}, not a {cls.__name__}: "
                f"use {found.__name__}.from_pretrained or load_model"
            )
        arguments = {name: config[name] for name in _constructor_arguments(found) if name in config}
        try:
            # On "meta" nothing is computed or stored that the file's weights would only replace.
            with torch.device("meta" if strict else "cpu"):
                model = found(**arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{config_path} does not describe a {found.__name__}: {error}"
            ) from error
        weights_path = fetch(source, WEIGHTS_NAME, download)
        tensors = read_weights(weights_path, model.state_dict(), map_location, strict)
        model.load_state_dict(tensors, strict=strict, assign=True)
        return model.to(map_location).eval()


def load_model(
    pretrained_model_name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    map_location: str | torch.device = "cpu",
    strict: bool = True,
) -> SegmentationModel:
    """Whichever of the three networks the repository or the folder holds; otherwise as
    `SegmentationModel.from_pretrained`."""
    return SegmentationModel.from_pretrained(
        pretrained_model_name_or_path,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        map_location=map_location,
        strict=strict,
    )


def _upload(
    folder: Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    branch: str | None = None,
    **kwargs: Any,
) -> str:
    """Commit the folder's three files to a Hub repository, made if need be; the commit's URL."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    arguments = {"allow_patterns": [CONFIG_NAME, WEIGHTS_NAME, "README.md"], **kwargs}
    return api.upload_folder(repo_id=repo_id, folder_path=folder, revision=branch, **arguments)


def _constructor_arguments(network: type) -> list[str]:
    constructor = inspect.signature(network.__init__)  # type: ignore[misc]  # a class, not a model
    return [name for name in constructor.parameters if name != "self"]


def _architecture(config: dict[str, Any], path: Path) -> type[SegmentationModel]:
    """The network class that the configuration names or, where plain `PyTorchModelHubMixin` wrote
    it and it names none, the one whose own arguments it has."""
    names = config.get("architectures")
    if names is None:
        own = {"FCN": "reference_padding", "UNet": "base_channels", "SegNet": "variant"}
        names = [name for name, argument in own.items() if argument in config]
    names = names if isinstance(names, list) else [names]
    known = [name for name in names if isinstance(name, str) and name in ARCHITECTURES]
    if len(known) != 1:
        raise CheckpointError(
            f"{path} describes none of {', '.join(ARCHITECTURES)} (architectures: {names!r})"
        )
    return ARCHITECTURES[known[0]]


def checked_int(name: str, value: int) -> int:
    """`value`; ValueError unless it is an int of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return value


def checked_bool(name: str, value: bool) -> bool:
    """`value`; ValueError unless it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def checked_choice(name: str, value: Choice, choices: Sequence[Choice]) -> Choice:
    """`value`; ValueError unless it is one of the choices, type included."""
    if type(value) is not type(choices[0]) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


def checked_rate(name: str, value: float) -> float:
    """`value`; ValueError unless it is a number in [0, 1)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number of at least 0 and less than 1, got {value!r}")
    return float(value)


def _checked_class_names(class_names: Sequence[str]) -> list[str]:
    if not isinstance(class_names, list | tuple) or not all(
        isinstance(name, str) for name in class_names
    ):
        raise ValueError(f"class_names must be a list of str, got {class_names!r}")
    if not 1 <= len(class_names) <= MAX_CLASSES:
        raise ValueError(f"class_names must hold 1 to {MAX_CLASSES} names, got {len(class_names)}")
    twice = {name for name in class_names if list(class_names).count(name) > 1}
    if twice:
        raise ValueError(f"class_names must differ from each other, got {sorted(twice)} twice")
    return list(class_names)


def _checked_palette(palette: Sequence[Sequence[int]], num_classes: int) -> list[list[int]]:
    try:
        colors = [[operator.index(value) for value in color] for color in palette]
    except TypeError:
        colors = []
    if len(colors) != num_classes or not all(
        len(color) == 3 and set(color) <= set(range(256)) for color in colors
    ):
        raise ValueError(
            f"palette must have a colour [r, g, b] of ints in 0..255 for each of {num_classes} "
            f"classes, got {palette!r}"
        )
    return colors


def _checked_channels(name: str, values: Sequence[float], in_channels: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != in_channels or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{name} must have a number for each of {in_channels} channels, got {values!r}"
        )
    return numbers
