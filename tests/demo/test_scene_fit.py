"""Whether an image is of the kind that networks know."""

import numpy as np
from PIL import Image

from segmodels.demo import scene_fit
from segmodels.demo.scene_fit import Fit, Outside
from segmodels.inference.comparison import ModelResult
from segmodels.inference.results import LabeledImage

NAMES = ["background", "cat", "dog"]


class Network:
    """Answers with these probabilities, (classes, h, w)."""

    def __init__(self, class_names, probabilities):
        self.class_names = class_names
        self.values = np.array(probabilities, np.float32)
        self.model = self.segmenter = self
        self.palette = [[0, 0, 0]] * len(class_names)

    def probabilities(self, image, working_size):
        return self.values

    def result(self):
        ids = self.values.argmax(0).astype(np.uint8)
        image = Image.new("RGB", ids.shape[::-1])
        return ModelResult(self, LabeledImage(image, ids, self.class_names, self.palette), 1.0)


def network(*winners, sure=0.9, names=NAMES):
    """One that gives a row of pixels these classes."""
    rest = (1 - sure) / (len(names) - 1)
    values = np.full((len(names), 1, len(winners)), rest)
    for x, winner in enumerate(winners):
        values[winner, 0, x] = sure
    return Network(names, values)


IMAGE = Image.new("RGB", (4, 1))


def test_a_fit_is_of_the_foreground():
    fit = scene_fit.estimate(IMAGE, [network(0, 0, 1, 2), network(0, 0, 1, 1, sure=0.7)])
    assert fit == Fit(np.float32(0.8), 0.5, 0.5) or abs(fit.confidence - 0.8) < 1e-6
    assert (fit.agreement, fit.foreground) == (0.5, 0.5)
    assert not fit.is_poor
    nothing = scene_fit.estimate(IMAGE, [network(0, 0, 0, 0)])
    assert nothing.is_poor
    assert nothing.score == 0


def test_only_what_agrees_on_little_or_sees_nothing_is_looked_at_closer():
    agree = [network(1, 1, 2, 2).result()] * 2
    differ = [network(1, 1, 1, 1).result(), network(2, 2, 2, 1).result()]
    nothing = [network(0, 0, 0, 0).result()] * 2
    other = network(1, 1, names=["background", "nucleus"]).result()
    assert not scene_fit.may_be_outside(agree)
    assert scene_fit.may_be_outside(differ)
    assert scene_fit.may_be_outside(nothing)
    assert not scene_fit.may_be_outside([agree[0], other])  # which cannot agree anyway
    assert scene_fit.may_be_outside(agree[:1])
    assert not scene_fit.may_be_outside([])


def test_the_scene_that_knows_the_image_is_offered():
    unsure = [network(1, 1, 1, 1, sure=0.5), network(2, 2, 2, 1, sure=0.5)]
    cells = [network(1, 0, 1, 1, names=["background", "nucleus"])] * 2
    blind = [network(0, 0, 0, 0)] * 2
    scenes = {"animals": unsure, "biomedical": cells, "other": blind}
    assert scene_fit.assess(IMAGE, "animals", scenes) == Outside("unsure", "biomedical")
    assert scene_fit.assess(IMAGE, "other", scenes) == Outside("nothing", "biomedical")
    assert scene_fit.assess(IMAGE, "biomedical", scenes) is None
    scenes.pop("biomedical")
    assert scene_fit.assess(IMAGE, "animals", scenes) == Outside("unsure", None)
    assert scene_fit.assess(IMAGE, "animals", {"animals": unsure}) == Outside("unsure", None)
