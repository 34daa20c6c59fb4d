"""Whether an image is of the kind that a scene's networks were trained for, and which scene's
networks know it better."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.inference.comparison import (
    AGREE,
    ModelResult,
    ServedModel,
    common_ids,
    disagreement,
    share_classes,
)
from segmodels.utils.palette import is_background

SIZE = 240  # longer side at which confidence is estimated, pixels
# On 23 images: those of streets had more than either, those of animals, people and cells less than
# both, with CamVid's networks at SIZE.
LOW_AGREEMENT = 0.46
DOUBTFUL_AGREEMENT = 0.55  # at the working size, where networks agree on more: worth a closer look
LOW_CONFIDENCE = 0.83
LEAST_FOREGROUND = 0.01  # of the image; less is nothing found


@dataclass(frozen=True)
class Fit:
    """How well networks know an image.

    Attributes:
        confidence: mean probability of the winning class, over the networks.
        agreement: share of the foreground on which all agree; 1 for one network.
        foreground: share of the image where any network sees something other than a background.
    """

    confidence: float
    agreement: float
    foreground: float

    @property
    def is_poor(self) -> bool:
        """Whether they agree on little and are unsure, or see nothing."""
        unsure = self.agreement < LOW_AGREEMENT and self.confidence < LOW_CONFIDENCE
        return unsure or self.foreground < LEAST_FOREGROUND

    @property
    def score(self) -> float:
        """The higher, the better; 0 where nothing is seen."""
        return self.confidence * self.agreement if self.foreground >= LEAST_FOREGROUND else 0.0


@dataclass(frozen=True)
class Outside:
    """An image that is probably of no kind that its scene's networks know.

    Attributes:
        kind: "unsure", or "nothing" where they see a background alone.
        better: the scene whose networks know it better; None for none.
    """

    kind: Literal["unsure", "nothing"]
    better: str | None


def may_be_outside(results: Sequence[ModelResult]) -> bool:
    """Whether a closer look is worth its time: from the class maps alone."""
    if len(results) < 2:
        return bool(results)
    if not share_classes(results):
        return False
    names, maps = common_ids(
        [result.segmentation.class_map for result in results],
        [result.segmentation.class_names for result in results],
    )
    agreement, foreground = _agreement(names, maps)
    return agreement < DOUBTFUL_AGREEMENT or foreground < LEAST_FOREGROUND


def assess(
    image: Image.Image, scene: str, scenes: Mapping[str, Sequence[ServedModel]]
) -> Outside | None:
    """Look closer at an image: None where the scene's networks know it.

    Args:
        image: RGB.
        scene: the one that it was compared in.
        scenes: the networks of each.
    """
    fit = estimate(image, scenes[scene])
    if not fit.is_poor:
        return None
    others = {name: estimate(image, scenes[name]) for name in scenes if name != scene}
    better = max(others, key=lambda name: others[name].score, default=None)
    if better is not None and (others[better].is_poor or others[better].score <= fit.score):
        better = None
    return Outside("nothing" if fit.foreground < LEAST_FOREGROUND else "unsure", better)


def estimate(image: Image.Image, networks: Iterable[ServedModel]) -> Fit:
    """How well the networks know an image, from a small copy of it."""
    confidences, maps, class_names = [], [], []
    for network in networks:
        probabilities = network.segmenter.probabilities(image, working_size=SIZE)
        confidences.append(float(probabilities.max(0).mean()))
        maps.append(probabilities.argmax(0).astype(np.uint8))
        class_names.append(network.model.class_names)
    agreement, foreground = _agreement(*common_ids(maps, class_names))
    return Fit(float(np.mean(confidences)), agreement, foreground)


def _agreement(names: Sequence[str], maps: Sequence[NDArray[np.uint8]]) -> tuple[float, float]:
    """The share of the foreground on which maps of ids into `names` agree, and the foreground's of
    the image."""
    background = [number for number, name in enumerate(names) if is_background(name)]
    foreground = ~np.logical_and.reduce([np.isin(ids, background) for ids in maps])
    agree = disagreement(maps) == AGREE
    return float(agree[foreground].mean()) if foreground.any() else 0.0, float(foreground.mean())
