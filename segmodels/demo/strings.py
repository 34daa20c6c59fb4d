"""What the page says, in one place: its English words, and the sentences made of figures."""

from collections.abc import Mapping, Sequence
from math import isnan

from segmodels.inference import comparison
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    comparable,
    results_of,
)

TITLE = "FCN, U-Net and SegNet, side by side"
INTRODUCTION = f"""
# {TITLE}
Three classic networks name the class of every pixel. Where do they agree, and where does one of
them blur a pole or lose a pedestrian? Drop a picture, take one, or click an example.
"""
SCENES = {
    "road": "Road: streets as seen from a car. The 11 classes of CamVid, from road and pavement to "
    "pole, sign and bicyclist; what is on no street it cannot name.",
    "everyday": "Everyday: animals, buildings, vehicles, faces and things outdoors and in. The 21 "
    "classes of MSRC; one or two large objects work best.",
    "own": "The networks that this server was started with.",
}
SCENE_NAMES = {"road": "Road", "everyday": "Everyday", "own": "Own networks"}
PRIVACY = """
Your picture is segmented on this server and shown to nobody else. It goes to no other service, is
used for nothing else, and is deleted after {minutes} minutes.
"""

RUNNING = "running …"
WAITING = "waiting"
AGREEMENT = "Agreement"
TRUTH = "Ground truth"
ERRORS = ["right", "wrong", "void: not judged"]
CONFIDENCE = "the winning class (confidence)"

VIEWER = {
    "view": "View",
    "overlay": "Overlay",
    "map": "Mask",
    "picture": "Original",
    "split": "Before and after",
    "opacity": "Opacity",
    "panels": "Panels",
    "all": "All",
    "choice": "Probability of",
    "legend": "Classes: switch one off or on in all panels",
    "every": "all or none",
}

NO_PICTURE = "Choose a picture first: drop one on the page, or take an example."
STALE = "Compare a picture first; this follows from it."
NO_DROPOUT = "None of these networks has dropout, so there are no samples to draw."
NO_FCN = "None of these networks is an FCN with skips."
LOADING = "Asking the Hub …"
PREPARING = "Preparing the files …"

TABS = {
    "areas": "Areas, time",
    "agreement": "Agreement",
    "confidence": "Confidence",
    "skips": "FCN's skips",
    "uncertainty": "Uncertainty",
    "truth": "Ground truth",
    "downloads": "Take away",
    "networks": "The networks",
    "own": "Own network",
    "programs": "API",
}
AGREEMENT_HELP = (
    "Where two networks say the same and the third departs, the map has the third's colour."
)
CONFIDENCE_HELP = (
    "The softmax of each network: of the class that wins in each pixel, or of a class of your "
    "choice. It says how sure a network is, not how right."
)
SKIPS_HELP = (
    "One FCN-8s, three readings of it. Stage 32s sees pool5 alone, at 1/32 of the picture; 16s "
    "adds the scores of pool4, 8s those of pool3 (Figure 4 of the paper)."
)
UNCERTAINTY_HELP = (
    "Bayesian SegNet's way: leave dropout on, draw samples, and see where they vary. The map is "
    "the root of the class probabilities' variance, averaged over the classes."
)
TRUTH_HELP = (
    "Drop a label picture of the same size: class ids in the order of the legend, 255 for void, or "
    "the legend's colours."
)
TRUTH_EXAMPLE = "The example with the stop sign has one already, drawn by hand, coarsely."
DOWNLOADS_HELP = (
    "At the picture's full size: class ids as an exact palette PNG (pixel value = class id), the "
    "overlay, the figures as JSON, and the comparison as one picture to share."
)
OWN_HELP = (
    "Put a network of yours in the place of one of these: the id of a public Hub repository that "
    "`push_to_hub` or `segmodels push` has written. Only safetensors are read, up to "
    "{megabytes} MB, and the files are deleted once loaded."
)
PROGRAMS = """
Two endpoints, for `gradio_client` or plain HTTP (see *Use via API* at the foot of the page):

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # or "user/space"
picture = handle_file("street.jpg")
client.predict(picture, "{model}", api_name="/segment")  # path of the class-id PNG, exact
client.predict(picture, "{scene}", api_name="/compare")  # figures of all networks, a dict
```

`/segment(picture, model)` answers with an indexed PNG of the picture's own size: pixel value =
class id, palette embedded. Models: {models}. `/compare(picture, scene)` answers with
`{{"scene", "size": [width, height], "agreement", "models": {{name: {{"seconds", "parameters",
"areas"}}}}}}`. Scenes: {scenes}.
"""

NETWORKS = {
    "fcn": """
## FCN (Long, Shelhamer, Darrell, 2015)
VGG16 with its fully connected layers as convolutions, so that it classifies every part of a picture
of any size. The coarse scores, at 1/32, are upsampled and summed with those of pool4 and pool3: the
skips bring back *where*. Soft outlines, good sense of the whole. [Paper](https://arxiv.org/abs/1411.4038)
""",
    "unet": """
## U-Net (Ronneberger, Fischer, Brox, 2015)
A contracting path and an expanding path of the same depth. Each level of the encoder is handed over
and concatenated, all its features rather than their scores, so that thin things survive: poles,
signs, cell walls. [Paper](https://arxiv.org/abs/1505.04597)
""",
    "segnet": """
## SegNet (Badrinarayanan, Kendall, Cipolla, 2017)
VGG16 and its mirror image. The decoder gets no features from the encoder, only the places of the
maxima that pooling kept: upsampling without learning and with little memory, and edges that stay
where they were. [Paper](https://arxiv.org/abs/1511.00561)
""",
}
FIGURE_ALTS = {
    "fcn": "FCN-8s: five poolings to 1/32 of the picture, scores from there and from pool4 and "
    "pool3, each upsampled and summed with the next",
    "unet": "U-Net: four levels down, four up, with a connection across at each level that "
    "concatenates the features",
    "segnet": "SegNet: five encoders and five mirrored decoders; each decoder unpools with the "
    "indices that the pooling opposite kept",
}


def percent(share: float) -> str:
    """A fraction in words: small shares are not shown as none."""
    if share == 0:
        return "-"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def caption(network: ServedModel, seconds: float | None) -> str:
    """A line under a panel: its seconds, once there are any, and the network's size."""
    size = f"{network.parameters / 1e6:.1f} M parameters"
    device = network.segmenter.device.type.upper()
    return size if seconds is None else f"{seconds:.2f} s on the {device} · {size}"


def progress(networks: Sequence[ServedModel], answers: Sequence[ModelResult | ModelFailure]) -> str:
    """What the comparison is at."""
    if len(answers) < len(networks):
        number = len(answers) + 1
        return f"{networks[len(answers)].title} is running, {number} of {len(networks)} …"
    results = results_of(answers)
    return agreement(comparison.agreement(comparable(results))) if len(results) > 1 else ""


def mask_alt(title: str, areas: Mapping[str, float]) -> str:
    """What a mask shows, for those who do not see it."""
    seen = [f"{name} {percent(share)}" for name, share in areas.items() if share]
    return f"Classes that {title} sees, by area: {', '.join(seen)}"


def failed(reason: str) -> str:
    return f"This network failed on this picture ({reason}). The others' answers stand."


def failed_view(error: Exception) -> str:
    return f"This failed ({type(error).__name__}: {error}). The comparison above stands."


def disagreement_names(titles: Sequence[str]) -> list[str]:
    """Of `comparison.disagreement`'s ids."""
    return ["all agree", *(f"only {title} departs" for title in titles), "all differ"]


STAGES = {
    32: "pool5 alone",
    16: "with the skip from pool4",
    8: "with the skips from pool4 and pool3",
}


def stage(stride: int) -> str:
    return f"Stage {stride}s"


def agreement(share: float) -> str:
    return f"All networks agree on {100 * share:.1f} % of the picture."


def mean_confidence(value: float) -> str:
    return f"mean confidence {percent(value)}"


def mean_deviation(value: float, samples: int) -> str:
    return f"mean deviation {value:.3f} over {samples} samples"


def without_dropout(titles: Sequence[str]) -> str:
    if not titles:
        return ""
    return f"Trained without dropout, so not here: {', '.join(titles)}."


def judgement(mean_iou: float, accuracy: float) -> str:
    return f"mean IoU {_number(mean_iou)} · {_number(accuracy)} of the pixels right"


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.1f} %"


def unusable(error: Exception) -> str:
    return f"This picture cannot be used: {error}"


def welcome(network: ServedModel) -> str:
    names = network.model.class_names
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{network.source} is a {network.title} with {len(names)} classes: {listed}."
