"""The training command that suits a dataset."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segmodels.data.dataset import SegmentationData
from segmodels.data.validation import SplitReport
from segmodels.training.presets import PRESETS

ROAD = {"road", "street", "car", "sky", "building", "pavement", "sidewalk", "pedestrian", "person"}
MICROSCOPY = ("cell", "nucle", "cytoplasm", "membrane", "neuron", "axon", "mitochondri", "tissue")
IMAGES_SEEN = 8  # of the training images, to tell whether they are grey
VAL_FRACTION = 0.2


def propose(folder: Path, reports: Mapping[str, SplitReport]) -> list[str]:
    """Propose how to train on a dataset.

    Args:
        folder: Of the dataset.
        reports: {split: report}, with "train" among the splits.

    Returns:
        A command, and sentences on what may be chosen beside it.
    """
    data = reports["train"].data
    preset = _preset(data)
    network = (PRESETS[preset].network if preset else None) or "unet"
    words = ["segmodels", "train", network, "--data", str(folder)]
    words += ["--out", f"{network}-{folder.resolve().name}"]
    if preset:
        words += ["--preset", preset]
    channels = _channels(data)
    if channels != 3:
        words += ["--in-channels", str(channels)]
    if "val" not in reports and len(data) >= 1 / VAL_FRACTION:
        words += ["--val-fraction", f"{VAL_FRACTION:g}"]
    return [shlex.join(words), *_alternatives(data, preset, channels)]


def _preset(data: SegmentationData) -> str | None:
    names = [name.lower() for name in data.class_names]
    if len(ROAD & set(names)) >= 3:
        return "road"
    if data.encoding.instances or any(word in name for name in names for word in MICROSCOPY):
        return "microscopy"
    return None


def _alternatives(data: SegmentationData, preset: str | None, channels: int) -> list[str]:
    if preset == "microscopy" and channels == 1 and len(data.class_names) == 2:
        return ["--preset paper-unet in its place trains U-Net exactly as its paper does"]
    if preset != "microscopy" and channels == 3:
        return ["--vgg16 imagenet starts from VGG16's ImageNet weights (553 MB from the Hub)"]
    return []


def _channels(data: SegmentationData) -> int:
    """Input channels: 1 for images that are grey, as far as a few of them tell."""
    chosen = np.linspace(0, len(data) - 1, min(IMAGES_SEEN, len(data))).astype(int)
    images = [data.image(int(index)) for index in chosen]
    channels = images[0].shape[2]
    is_grey = channels == 3 and all((image == image[..., :1]).all() for image in images)
    return 1 if is_grey else channels
