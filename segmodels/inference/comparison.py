"""Comparison of several networks on one image: class maps, times, areas and agreement."""

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
AGREE = 0  # value in `disagreement`; 1 to N: only that map differs; N + 1: all other cases
RIGHT, WRONG, VOID = 0, 1, 2  # values in `errors`
OWN_SCENE = "own"
# Scene by the dataset at the end of a network's name; all others belong to "own".
SCENES = {"camvid": "road", "animals": "animals", "biomedical": "biomedical", "msrc": "everyday"}


@dataclass(frozen=True)
class ServedModel:
    """A network that is served.

    Attributes:
        name: Unique name, from that of the folder or repository, such as "unet-camvid".
        scene: The kind of images that it was trained for, see `SCENES`.
        segmenter: The segmenter with this network.
        source: The Hub id or folder that it was loaded from.
        revision: The commit of its Hub repository; "" if unknown.

    Raises:
        ValueError: If the number of input channels is not 1 or 3.
    """

    name: str
    scene: str
    segmenter: Segmenter
    source: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        if self.model.in_channels not in (1, 3):
            raise ValueError(
                f"expected a network with 1 or 3 input channels, got a {type(self.model).__name__} "
                f"with {self.model.in_channels}: use `segmodels predict` for such images"
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
        """The name, for use in file names."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class ModelResult:
    """The result of a network.

    Attributes:
        network: The network.
        segmentation: The image with its class map.
        seconds: Time from the decoded image to the class map.
    """

    network: ServedModel
    segmentation: LabeledImage
    seconds: float


@dataclass(frozen=True)
class ModelFailure:
    """A network that failed on the image.

    Attributes:
        network: The network.
        reason: Type and message of the error, for logs.
    """

    network: ServedModel
    reason: str


def served_sources(folder: Path) -> list[str]:
    """List the networks to serve.

    Args:
        folder: Contains the model folders to serve, unless the environment variable
            SEGMODELS_MODELS lists others: Hub ids or folders, separated by commas.

    Returns:
        Hub ids or folders.

    Raises:
        CheckpointError: If there are none.
    """
    wanted = [source.strip() for source in os.environ.get(MODELS_VARIABLE, "").split(",")]
    sources = [source for source in wanted if source]
    if not sources and folder.is_dir():
        configs = folder.glob("*/config.json")
        found = sorted((path.parent for path in configs), key=_publication_order)
        sources = [str(path) for path in found]
    if not sources:
        raise CheckpointError(
            f"no network to serve: {folder} contains no model folders; set {MODELS_VARIABLE} to "
            "Hub ids or folders, separated by commas"
        )
    return sources


def _publication_order(folder: Path) -> tuple[int, str]:
    """Sort key: architectures in order of publication, then all others; ties by folder name."""
    network = folder.name.split("-")[0]
    order = architectures()
    return order.index(network) if network in order else len(order), folder.name


def load_networks(sources: Sequence[str], device: str = "auto") -> list[ServedModel]:
    """Load the networks to serve.

    All networks of a scene have the same classes: a network whose classes differ from those of the
    first in its scene belongs to the scene "own" or, if they differ there as well, to "own-2", and
    so on.

    Args:
        sources: Hub ids or folders; duplicates are loaded once.
        device: As in `Segmenter`.

    Raises:
        CheckpointError: If a network cannot be loaded.
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
    """The scene of the network `name` with the classes `own`. `classes` maps each scene so far to
    its classes; a new scene is added."""
    wanted = SCENES.get(name.rsplit("-", 1)[-1], OWN_SCENE)
    candidates = chain([wanted, OWN_SCENE], (f"{OWN_SCENE}-{number}" for number in count(2)))
    return next(scene for scene in candidates if classes.setdefault(scene, own) == own)


def _unique_names(sources: Sequence[str]) -> list[str]:
    """The last component of each source, with as many of the preceding ones as needed to be unique:
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
    """Group the networks by scene, in their order."""
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
        image: As for `Segmenter`; it is decoded only once.
        max_pixels: Images with more pixels are rejected before they are decoded.

    Yields:
        The result of each network as soon as it is available. If a network fails, the others still
        run.

    Raises:
        PictureError: If the image cannot be read, or is too large.
    """
    if not isinstance(image, DecodedImage):
        image = DecodedImage.read(image, max_pixels=max_pixels)
    for network in networks:
        start = time.perf_counter()
        try:
            segmentation = network.segmenter(image)
        except Exception as error:  # of any kind: the other networks still run
            width, height = image.image.size
            log.exception("%s failed on an image of %d x %d pixels", network.name, width, height)
            yield ModelFailure(network, f"{type(error).__name__}: {error}")
        else:
            yield ModelResult(network, segmentation, time.perf_counter() - start)


def summary(scene: str, answers: Sequence[ModelResult | ModelFailure]) -> dict[str, Any]:
    """The JSON-compatible response of the demo's /compare.

    Size and agreement refer to the networks that did not fail; the size is None if all failed. The
    agreement is None with fewer than two results, or if the networks have no class in common.
    Networks that failed have an "error" instead of the other entries.
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
    """The results of the networks that did not fail."""
    return [answer for answer in answers if isinstance(answer, ModelResult)]


def share_classes(results: Sequence[ModelResult]) -> bool:
    """Whether there are several results, and all networks have a class other than background in
    common. If not, their agreement is meaningless."""
    names = [set(result.segmentation.class_names) for result in results]
    return len(names) > 1 and any(not is_background(name) for name in set.intersection(*names))


def comparable(results: Sequence[ModelResult]) -> list[Ids]:
    """The class maps (H, W), with the same ids for the same class names in all of them."""
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


# ---- comparison of class maps ----


def common_ids(
    class_maps: Sequence[Ids], class_names: Sequence[Sequence[str]]
) -> tuple[list[str], list[Ids]]:
    """Convert class maps to common ids, so that networks with different classes can be compared.

    Args:
        class_maps: (H, W) each.
        class_names: Class names for the ids of each map.

    Returns:
        Class names for the common ids, unique and in order of first appearance, and the converted
        maps, (H, W) uint8 each.

    Raises:
        ValueError: If there are more than 255 different names.
    """
    names = list(dict.fromkeys(name for group in class_names for name in group))
    if len(names) > 255:
        raise ValueError(f"at most 255 different classes can be compared, got {len(names)}")
    tables = [np.array([names.index(name) for name in group], np.uint8) for group in class_names]
    return names, [table[ids] for table, ids in zip(tables, class_maps, strict=True)]


def agreement(class_maps: Sequence[Ids]) -> float:
    """Fraction of the pixels that have the same class in all maps, (H, W) each."""
    return float((disagreement(class_maps) == AGREE).mean())


def disagreement(class_maps: Sequence[Ids]) -> Ids:
    """(H, W) uint8 for N maps: AGREE (0) where all agree; k from 1 to N where only the k-th map
    differs and the others, at least two, agree; N + 1 in all other cases."""
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
    """Scale values from [0, highest] to 0..255, rounded; values outside the range are clipped."""
    return np.rint(255 / highest * np.clip(values, 0, highest)).astype(np.uint8)
