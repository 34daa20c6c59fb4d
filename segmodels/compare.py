"""Several networks on one picture: their masks, seconds, areas, and where they agree."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import CheckpointError
from .fcn import FCN
from .hub import SegmentationModel, load_model
from .pictures import MAX_PIXELS, Picture, read_picture
from .segmentation import Segmentation
from .segmenter import Segmenter
from .unet import UNet

MODELS_VARIABLE = "SEGMODELS_MODELS"
SCENES = {"camvid": "road", "msrc": "everyday"}  # by the data set at the end of a model's name


@dataclass(frozen=True)
class Network:
    """A network that is served.

    name: its folder's or repository's, "unet-camvid" for example. scene: what it was trained for.
    """

    name: str
    scene: str
    segmenter: Segmenter

    @property
    def title(self) -> str:
        return title(self.segmenter.model)

    @property
    def parameters(self) -> int:
        return count_parameters(self.segmenter.model)


@dataclass(frozen=True)
class Result:
    """One network's answer. seconds: from the decoded picture to the class map."""

    network: Network
    segmentation: Segmentation
    seconds: float


def title(model: SegmentationModel) -> str:
    """The network as its paper calls it."""
    if isinstance(model, FCN):
        return f"FCN-{model.stride}s"
    return "U-Net" if isinstance(model, UNet) else type(model).__name__


def count_parameters(model: SegmentationModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def served_sources(folder: Path) -> list[str]:
    """What to serve: the ids or folders of SEGMODELS_MODELS, comma-separated, or else every model
    folder in `folder`. CheckpointError if there is none."""
    wanted = [source.strip() for source in os.environ.get(MODELS_VARIABLE, "").split(",")]
    sources = [source for source in wanted if source]
    if not sources and folder.is_dir():
        found = sorted((path.parent for path in folder.glob("*/config.json")), key=_by_publication)
        sources = [str(path) for path in found]
    if not sources:
        raise CheckpointError(
            f"there is no network to serve: {folder} holds no model folder and {MODELS_VARIABLE} "
            "is not set to Hub ids or folders, comma-separated"
        )
    return sources


def _by_publication(folder: Path) -> tuple[int, str]:
    """FCN (CVPR 2015), U-Net (MICCAI 2015), SegNet (2017), and then others by their names."""
    network = folder.name.split("-")[0]
    order = ("fcn", "unet", "segnet")
    return order.index(network) if network in order else len(order), folder.name


def load_networks(sources: Sequence[str], device: str = "auto") -> list[Network]:
    """The networks, on the device. CheckpointError for one that cannot be loaded."""
    networks = []
    for source in sources:
        name = Path(source).name
        scene = SCENES.get(name.rsplit("-", 1)[-1], "own")
        networks.append(Network(name, scene, Segmenter(load_model(source), device)))
    return networks


def by_scene(networks: Sequence[Network]) -> dict[str, list[Network]]:
    """The networks of each scene, in their order."""
    scenes: dict[str, list[Network]] = {}
    for network in networks:
        scenes.setdefault(network.scene, []).append(network)
    return scenes


def compare(
    networks: Sequence[Network], picture: Picture, *, max_pixels: int = MAX_PIXELS
) -> Iterator[Result]:
    """Each network's result as soon as it is there. Raises PictureError for what is no picture, or
    one of more than `max_pixels`."""
    array = read_picture(picture, max_pixels=max_pixels)
    for network in networks:
        start = time.perf_counter()
        segmentation = network.segmenter(array)
        yield Result(network, segmentation, time.perf_counter() - start)


def agreement(class_maps: Sequence[NDArray[np.uint8]]) -> float:
    """Fraction of the pixels to which all the maps, (H, W) each, give the same class."""
    same = np.ones(class_maps[0].shape, bool)
    for class_map in class_maps[1:]:
        same &= class_map == class_maps[0]
    return float(same.mean())


def summary(scene: str, results: Sequence[Result]) -> dict[str, Any]:
    """JSON-able: what the demo's /compare answers."""
    class_maps = [result.segmentation.class_map for result in results]
    height, width = class_maps[0].shape
    return {
        "scene": scene,
        "size": [width, height],
        "agreement": agreement(class_maps),
        "models": {result.network.name: _figures(result) for result in results},
    }


def _figures(result: Result) -> Mapping[str, Any]:
    return {
        "seconds": result.seconds,
        "parameters": result.network.parameters,
        "areas": result.segmentation.areas(),
    }
