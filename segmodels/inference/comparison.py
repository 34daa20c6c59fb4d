"""Several networks on one image: their class maps, seconds, areas, and where they agree."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmodels.data.image_io import MAX_PIXELS, Picture
from segmodels.hub.checkpoint import CheckpointError
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.results import LabeledImage
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.registry import architectures
from segmodels.utils.palette import is_background

Ids = NDArray[np.uint8]

log = logging.getLogger(__name__)

MODELS_VARIABLE = "SEGMODELS_MODELS"
AGREE = 0  # of `disagreement`; 1 ... N: that map alone differs; N + 1: otherwise
RIGHT, WRONG, VOID = 0, 1, 2  # of `errors`
OWN_SCENE = "own"
# What networks are for, by the dataset at the end of their names; any other is "own".
SCENES = {"camvid": "road", "animals": "animals", "biomedical": "biomedical", "msrc": "everyday"}


@dataclass(frozen=True)
class ServedModel:
    """A network that is served.

    Attributes:
        name: Its folder's or repository's, "unet-camvid" for example; no two have the same.
        scene: What it was trained for, see `SCENES`.
        segmenter: It, ready to segment.
        source: The Hub id or the folder that it was loaded from.
        revision: The commit of its Hub repository; "" where that is not known.

    Raises:
        ValueError: If the network takes other than 1 or 3 channels.
    """

    name: str
    scene: str
    segmenter: Segmenter
    source: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        if self.model.in_channels not in (1, 3):
            raise ValueError(
                f"images have 1 or 3 channels; this {type(self.model).__name__} takes "
                f"{self.model.in_channels}: segment them with `segmodels predict`"
            )

    @property
    def model(self) -> SegmentationModel:
        return self.segmenter.model

    @property
    def title(self) -> str:
        return self.model.display_name

    @property
    def parameters(self) -> int:
        return self.model.parameter_count

    @property
    def file_name(self) -> str:
        """The name as a part of a file's."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class ModelResult:
    """A network's answer.

    Attributes:
        network: The network.
        segmentation: Its class map over the image.
        seconds: From the decoded image to the class map.
    """

    network: ServedModel
    segmentation: LabeledImage
    seconds: float


@dataclass(frozen=True)
class ModelFailure:
    """A network that gave no answer.

    Attributes:
        network: The network.
        reason: Why, for a log.
    """

    network: ServedModel
    reason: str


def served_sources(folder: Path) -> list[str]:
    """What to serve.

    Args:
        folder: Its model folders are served unless the environment variable SEGMODELS_MODELS names
            others: Hub ids or folders, comma-separated.

    Raises:
        CheckpointError: If there is nothing to serve.
    """
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
    """Load the networks that are served.

    Networks of one scene have the same classes: one with others than the first of its scene is in
    the scene "own", and where that has yet others, in "own-2" and so on.

    Args:
        sources: Hub ids or folders; one that is given twice is loaded once.
        device: As in `Segmenter`.

    Raises:
        CheckpointError: If one cannot be loaded.
    """
    sources = list(dict.fromkeys(sources))
    networks = []
    classes: dict[str, frozenset[str]] = {}
    for source, name in zip(sources, _unique_names(sources), strict=True):
        model = load_model(source)
        scene = _scene(name, frozenset(model.class_names), classes)
        networks.append(ServedModel(name, scene, Segmenter(model, device), source))
    return networks


def _scene(name: str, own: frozenset[str], classes: dict[str, frozenset[str]]) -> str:
    """The scene of a network with these classes. classes: of each scene so far, is extended."""
    wanted = SCENES.get(name.rsplit("-", 1)[-1], OWN_SCENE)
    candidates = chain([wanted, OWN_SCENE], (f"{OWN_SCENE}-{number}" for number in count(2)))
    return next(scene for scene in candidates if classes.setdefault(scene, own) == own)


def _unique_names(sources: Sequence[str]) -> list[str]:
    """The last part of each source or, where two have the same, as many as tell them apart:
    "net", or "orgA/net" and "orgB/net"."""
    parts = [
        Path(source).resolve().parts
        if Path(source).is_dir()
        else tuple(source.strip("/").split("/"))
        for source in sources
    ]
    names = []
    for own in parts:
        same = [other for other in parts if other != own]
        count = 1
        while count < len(own) and any(other[-count:] == own[-count:] for other in same):
            count += 1
        names.append("/".join(own[-count:]))
    return names


def by_scene(networks: Sequence[ServedModel]) -> dict[str, list[ServedModel]]:
    """The networks of each scene, in their order."""
    scenes: dict[str, list[ServedModel]] = {}
    for network in networks:
        scenes.setdefault(network.scene, []).append(network)
    return scenes


def compare(
    networks: Sequence[ServedModel],
    image: Picture | DecodedImage,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[ModelResult | ModelFailure]:
    """Segment one image with several networks.

    Args:
        networks: The networks.
        image: As in a call of `Segmenter`; it is decoded once.
        max_pixels: Refuse, before decoding, an image with more.

    Yields:
        Each network's answer as soon as it is there. A network that fails does not keep the others
        from answering.

    Raises:
        PictureError: If it is not a readable image, or too large.
    """
    if not isinstance(image, DecodedImage):
        image = DecodedImage.read(image, max_pixels=max_pixels)
    for network in networks:
        start = time.perf_counter()
        try:
            segmentation = network.segmenter(image)
        except Exception as error:  # whatever it is, the others' answers count
            width, height = image.image.size
            log.exception("%s failed on an image of %d x %d pixels", network.name, width, height)
            yield ModelFailure(network, f"{type(error).__name__}: {error}")
        else:
            yield ModelResult(network, segmentation, time.perf_counter() - start)


def summary(scene: str, answers: Sequence[ModelResult | ModelFailure]) -> dict[str, Any]:
    """What the demo's /compare answers, JSON-able.

    The size and the agreement are those of the networks that answered, or None; the agreement is
    None too for one network, and for networks that have no class in common. A network that failed
    has an "error" in place of seconds and areas.
    """
    results = results_of(answers)
    sizes = [list(result.segmentation.class_map.shape[::-1]) for result in results]
    return {
        "scene": scene,
        "size": sizes[0] if sizes else None,
        "agreement": agreement(comparable(results)) if share_classes(results) else None,
        "models": {answer.network.name: _entry(answer) for answer in answers},
    }


def results_of(answers: Sequence[ModelResult | ModelFailure]) -> list[ModelResult]:
    """The answers of the networks that did not fail."""
    return [answer for answer in answers if isinstance(answer, ModelResult)]


def share_classes(results: Sequence[ModelResult]) -> bool:
    """Whether there are several, and the networks have a class in common besides a background:
    otherwise they cannot agree, whatever they see."""
    names = [set(result.segmentation.class_names) for result in results]
    return len(names) > 1 and any(not is_background(name) for name in set.intersection(*names))


def comparable(results: Sequence[ModelResult]) -> list[Ids]:
    """The class maps (H, W), with ids into one list of names where the networks' classes differ."""
    return common_ids(
        [result.segmentation.class_map for result in results],
        [result.segmentation.class_names for result in results],
    )[1]


def _entry(answer: ModelResult | ModelFailure) -> Mapping[str, Any]:
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
    """Class maps with ids into one list of names, so that networks of different classes compare.

    Args:
        class_maps: (H, W) each.
        class_names: The names that each map's ids stand for.

    Returns:
        The list, each name once in the order of first appearance, and the maps (H, W) uint8.

    Raises:
        ValueError: For more than 255 names.
    """
    names = list(dict.fromkeys(name for group in class_names for name in group))
    if len(names) > 255:
        raise ValueError(f"at most 255 different classes can be compared, got {len(names)}")
    tables = [np.array([names.index(name) for name in group], np.uint8) for group in class_names]
    return names, [table[ids] for table, ids in zip(tables, class_maps, strict=True)]


def agreement(class_maps: Sequence[Ids]) -> float:
    """Fraction of the pixels to which all the maps, (H, W) each, give the same class."""
    return float((disagreement(class_maps) == AGREE).mean())


def disagreement(class_maps: Sequence[Ids]) -> Ids:
    """(H, W) uint8 for N maps: AGREE (0) where all give the same class; k from 1 to N where only
    the k-th map differs from the others, which agree; N + 1 where no one map can be named."""
    count = len(class_maps)
    result = np.full(class_maps[0].shape, count + 1, np.uint8)
    if count > 2:
        for k in range(count):
            others = [ids for number, ids in enumerate(class_maps) if number != k]
            result[_all_equal(others)] = k + 1
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
