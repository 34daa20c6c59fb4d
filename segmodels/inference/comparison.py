"""Several networks on one picture: their masks, seconds, areas, and where they agree."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmodels.data.image_io import MAX_PIXELS, Picture, read_picture
from segmodels.hub.checkpoint import CheckpointError
from segmodels.inference.maps import agreement, common_ids
from segmodels.inference.results import ClassPicture, Segmentation
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.fcn import FCN
from segmodels.models.unet import UNet

log = logging.getLogger(__name__)

MODELS_VARIABLE = "SEGMODELS_MODELS"
SCENES = {"camvid": "road", "msrc": "everyday"}  # by the data set at the end of a model's name


@dataclass(frozen=True)
class Network:
    """A network that is served.

    name: its folder's or repository's, "unet-camvid" for example. scene: what it was trained for.
    source: the Hub id or the folder that it was loaded from.
    """

    name: str
    scene: str
    segmenter: Segmenter
    source: str = ""

    @property
    def model(self) -> SegmentationModel:
        return self.segmenter.model

    @property
    def title(self) -> str:
        return title(self.model)

    @property
    def parameters(self) -> int:
        return count_parameters(self.model)


@dataclass(frozen=True)
class Result:
    """One network's answer. seconds: from the decoded picture to the class map."""

    network: Network
    segmentation: ClassPicture
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A network that gave no answer, and why."""

    network: Network
    reason: str


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
        networks.append(Network(name, scene, Segmenter(load_model(source), device), source))
    return networks


def by_scene(networks: Sequence[Network]) -> dict[str, list[Network]]:
    """The networks of each scene, in their order."""
    scenes: dict[str, list[Network]] = {}
    for network in networks:
        scenes.setdefault(network.scene, []).append(network)
    return scenes


def compare(
    networks: Sequence[Network], picture: Picture, *, max_pixels: int = MAX_PIXELS
) -> Iterator[Result | Failure]:
    """Each network's result as soon as it is there; a network that fails does not keep the others
    from answering. Raises PictureError for what is no picture, or one of more than `max_pixels`."""
    array = read_picture(picture, max_pixels=max_pixels)
    for network in networks:
        start = time.perf_counter()
        try:
            segmentation: Segmentation = network.segmenter(array)
        except Exception as error:  # whatever it is, the others' answers count
            log.exception("%s failed on a picture of shape %s", network.name, array.shape)
            yield Failure(network, f"{type(error).__name__}: {error}")
        else:
            yield Result(network, segmentation, time.perf_counter() - start)


def summary(scene: str, answers: Sequence[Result | Failure]) -> dict[str, Any]:
    """JSON-able: what the demo's /compare answers. The size and the agreement are those of the
    networks that answered, or None; one that failed has an "error" in place of its figures."""
    results = results_of(answers)
    sizes = [list(result.segmentation.class_map.shape[::-1]) for result in results]
    return {
        "scene": scene,
        "size": sizes[0] if sizes else None,
        "agreement": agreement(comparable(results)) if results else None,
        "models": {answer.network.name: _figures(answer) for answer in answers},
    }


def results_of(answers: Sequence[Result | Failure]) -> list[Result]:
    return [answer for answer in answers if isinstance(answer, Result)]


def comparable(results: Sequence[Result]) -> list[Any]:
    """The class maps (H, W), with ids into one list of names where the networks' classes differ."""
    return common_ids(
        [result.segmentation.class_map for result in results],
        [result.segmentation.class_names for result in results],
    )[1]


def _figures(answer: Result | Failure) -> Mapping[str, Any]:
    if isinstance(answer, Failure):
        return {"error": answer.reason}
    return {
        "seconds": answer.seconds,
        "parameters": answer.network.parameters,
        "areas": answer.segmentation.areas(),
    }
