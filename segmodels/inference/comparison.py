"""Several networks on one picture: their masks, seconds, areas, and where they agree."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmodels.data.image_io import MAX_PIXELS, Picture, read_picture
from segmodels.hub.checkpoint import CheckpointError
from segmodels.inference.results import LabeledImage, Segmentation
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.registry import architectures

Ids = NDArray[np.uint8]

log = logging.getLogger(__name__)

MODELS_VARIABLE = "SEGMODELS_MODELS"
AGREE = 0  # of `disagreement`; 1 ... N: that map alone differs; N + 1: otherwise
RIGHT, WRONG, VOID = 0, 1, 2  # of `errors`
SCENES = {"camvid": "road", "msrc": "everyday"}  # by the data set at the end of a model's name


@dataclass(frozen=True)
class ServedModel:
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
        return self.model.display_name

    @property
    def parameters(self) -> int:
        return self.model.parameter_count


@dataclass(frozen=True)
class ModelResult:
    """One network's answer. seconds: from the decoded picture to the class map."""

    network: ServedModel
    segmentation: LabeledImage
    seconds: float


@dataclass(frozen=True)
class ModelFailure:
    """A network that gave no answer, and why."""

    network: ServedModel
    reason: str


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
    """The networks in the order of publication, and then others by their names."""
    network = folder.name.split("-")[0]
    order = architectures()
    return order.index(network) if network in order else len(order), folder.name


def load_networks(sources: Sequence[str], device: str = "auto") -> list[ServedModel]:
    """The networks, on the device. CheckpointError for one that cannot be loaded."""
    networks = []
    for source in sources:
        name = Path(source).name
        scene = SCENES.get(name.rsplit("-", 1)[-1], "own")
        networks.append(ServedModel(name, scene, Segmenter(load_model(source), device), source))
    return networks


def by_scene(networks: Sequence[ServedModel]) -> dict[str, list[ServedModel]]:
    """The networks of each scene, in their order."""
    scenes: dict[str, list[ServedModel]] = {}
    for network in networks:
        scenes.setdefault(network.scene, []).append(network)
    return scenes


def compare(
    networks: Sequence[ServedModel], picture: Picture, *, max_pixels: int = MAX_PIXELS
) -> Iterator[ModelResult | ModelFailure]:
    """Each network's result as soon as it is there; a network that fails does not keep the others
    from answering. Raises PictureError for what is no picture, or one of more than `max_pixels`."""
    array = read_picture(picture, max_pixels=max_pixels)
    for network in networks:
        start = time.perf_counter()
        try:
            segmentation: Segmentation = network.segmenter(array)
        except Exception as error:  # whatever it is, the others' answers count
            log.exception("%s failed on a picture of shape %s", network.name, array.shape)
            yield ModelFailure(network, f"{type(error).__name__}: {error}")
        else:
            yield ModelResult(network, segmentation, time.perf_counter() - start)


def summary(scene: str, answers: Sequence[ModelResult | ModelFailure]) -> dict[str, Any]:
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


def results_of(answers: Sequence[ModelResult | ModelFailure]) -> list[ModelResult]:
    return [answer for answer in answers if isinstance(answer, ModelResult)]


def comparable(results: Sequence[ModelResult]) -> list[Any]:
    """The class maps (H, W), with ids into one list of names where the networks' classes differ."""
    return common_ids(
        [result.segmentation.class_map for result in results],
        [result.segmentation.class_names for result in results],
    )[1]


def _figures(answer: ModelResult | ModelFailure) -> Mapping[str, Any]:
    if isinstance(answer, ModelFailure):
        return {"error": answer.reason}
    return {
        "seconds": answer.seconds,
        "parameters": answer.network.parameters,
        "areas": answer.segmentation.areas(),
    }


# ---- maps that compare class maps ----


def common_ids(
    class_maps: Sequence[Ids], class_names: Sequence[Sequence[str]]
) -> tuple[list[str], list[Ids]]:
    """The maps with ids into one list of names, so that networks of different classes can be
    compared: the list, each name once in the order of first appearance, and the maps (H, W).
    ValueError for more than 255 names."""
    names = list(dict.fromkeys(name for group in class_names for name in group))
    if len(names) > 255:
        raise ValueError(f"at most 255 different classes can be compared, got {len(names)}")
    tables = [np.array([names.index(name) for name in group], np.uint8) for group in class_names]
    return names, [table[ids] for table, ids in zip(tables, class_maps, strict=True)]


def agreement(class_maps: Sequence[Ids]) -> float:
    """Fraction of the pixels to which all the maps, (H, W) each, give the same class."""
    return float((disagreement(class_maps) == AGREE).mean())


def disagreement(class_maps: Sequence[Ids]) -> Ids:
    """(H, W) uint8 for N maps: 0 where all give the same class; k from 1 to N where the k-th map
    alone departs from the others, which agree; N + 1 where no one map can be named."""
    count = len(class_maps)
    result = np.full(class_maps[0].shape, count + 1, np.uint8)
    if count > 2:
        for departing in range(count):
            others = [ids for number, ids in enumerate(class_maps) if number != departing]
            result[_all_equal(others)] = departing + 1
    result[_all_equal(class_maps)] = AGREE
    return result


def _all_equal(class_maps: Sequence[Ids]) -> NDArray[np.bool_]:
    same = np.ones(class_maps[0].shape, bool)
    for class_map in class_maps[1:]:
        same &= class_map == class_maps[0]
    return same


def errors(target: Ids, class_map: Ids, *, ignore_index: int = 255) -> Ids:
    """(H, W) uint8: RIGHT (0), WRONG (1), or VOID (2) where the target has `ignore_index`."""
    result = np.where(class_map == target, RIGHT, WRONG).astype(np.uint8)
    result[target == ignore_index] = VOID
    return result


def quantised(values: NDArray[Any], highest: float = 1.0) -> Ids:
    """Numbers from 0 to `highest` as 0 to 255, rounded; those beyond are clipped."""
    return np.rint(255 / highest * np.clip(values, 0, highest)).astype(np.uint8)
