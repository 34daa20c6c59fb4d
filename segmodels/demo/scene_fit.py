"""Estimates whether an image resembles what a scene's networks were trained for, and which other
scene may fit it better."""

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

SIZE = 240  # longer side in pixels at which confidence is estimated
# Determined on 23 images with the CamVid networks at SIZE: street images exceed LOW_AGREEMENT or
# LOW_CONFIDENCE; images of animals, people and cells are below both.
LOW_AGREEMENT = 0.46
DOUBTFUL_AGREEMENT = 0.55  # at the working size, where agreement is higher: run the full estimate
LOW_CONFIDENCE = 0.83
LEAST_FOREGROUND = 0.01  # share of the image; below it, nothing was found


@dataclass(frozen=True)
class Fit:
    """How well an image fits what networks were trained for.

    Attributes:
        confidence: Mean probability of the predicted class, over all networks.
        agreement: Share of the foreground on which all networks agree; 1 for a single network.
        foreground: Share of the image where any network predicts a class other than background.
    """

    confidence: float
    agreement: float
    foreground: float

    @property
    def is_poor(self) -> bool:
        """Whether agreement and confidence are both low, or nothing was found."""
        unsure = self.agreement < LOW_AGREEMENT and self.confidence < LOW_CONFIDENCE
        return unsure or self.foreground < LEAST_FOREGROUND

    @property
    def score(self) -> float:
        """Score of the fit, higher is better; 0 if nothing was found."""
        return self.confidence * self.agreement if self.foreground >= LEAST_FOREGROUND else 0.0


@dataclass(frozen=True)
class Outside:
    """An image that is probably outside what its scene's networks were trained for.

    Attributes:
        kind: "nothing" if they see only background, "unsure" otherwise.
        better: The scene that fits better; None if there is none.
    """

    kind: Literal["unsure", "nothing"]
    better: str | None


def may_be_outside(results: Sequence[ModelResult]) -> bool:
    """Whether `assess` is worth running, judged from the class maps alone."""
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
    """Estimate whether an image is outside the scene that it was compared in.

    Args:
        image: RGB image.
        scene: The scene that the image was compared in.
        scenes: Networks by scene.

    Returns:
        None if the image fits its scene.
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
    """Estimate the fit of an image from a small copy of it."""
    confidences, maps, class_names = [], [], []
    for network in networks:
        probabilities = network.segmenter.probabilities(image, working_size=SIZE)
        confidences.append(float(probabilities.max(0).mean()))
        maps.append(probabilities.argmax(0).astype(np.uint8))
        class_names.append(network.model.class_names)
    agreement, foreground = _agreement(*common_ids(maps, class_names))
    return Fit(float(np.mean(confidences)), agreement, foreground)


def _agreement(names: Sequence[str], maps: Sequence[NDArray[np.uint8]]) -> tuple[float, float]:
    """Return the share of the foreground on which maps of ids into `names` agree, and the
    foreground's share of the image."""
    background = [number for number, name in enumerate(names) if is_background(name)]
    foreground = ~np.logical_and.reduce([np.isin(ids, background) for ids in maps])
    agree = disagreement(maps) == AGREE
    return float(agree[foreground].mean()) if foreground.any() else 0.0, float(foreground.mean())
