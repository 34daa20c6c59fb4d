"""Proposal of a training command for a dataset."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segmodels.data.dataset import SegmentationData
from segmodels.data.validation import SplitReport
from segmodels.training.presets import PRESETS

ROAD = {"road", "street", "car", "sky", "building", "pavement", "sidewalk", "pedestrian", "person"}
MICROSCOPY = ("cell", "nucle", "cytoplasm", "membrane", "neuron", "axon", "mitochondri", "tissue")
NUM_INSPECTED = 8  # number of training images that are checked for being greyscale
VAL_FRACTION = 0.2


def propose(folder: Path, reports: Mapping[str, SplitReport]) -> list[str]:
    """Propose how to train on a dataset.

    Args:
        folder: Folder of the dataset.
        reports: {split: report}, including "train".

    Returns:
        A command, followed by sentences about alternative options.
    """
    data = reports["train"].data
    preset = _preset(data)
    network = (PRESETS[preset].network if preset else None) or "unet"
    command = ["segmodels", "train", network, "--data", str(folder)]
    command += ["--out", f"{network}-{folder.resolve().name}"]
    if preset:
        command += ["--preset", preset]
    channels = _channels(data)
    if channels != 3:
        command += ["--in-channels", str(channels)]
    if "val" not in reports and len(data) >= 1 / VAL_FRACTION:
        command += ["--val-fraction", f"{VAL_FRACTION:g}"]
    return [shlex.join(command), *_alternatives(data, preset, channels)]


def _preset(data: SegmentationData) -> str | None:
    names = [name.lower() for name in data.class_names]
    if len(ROAD & set(names)) >= 3:
        return "road"
    if data.encoding.instances or any(word in name for name in names for word in MICROSCOPY):
        return "microscopy"
    return None


def _alternatives(data: SegmentationData, preset: str | None, channels: int) -> list[str]:
    if preset == "microscopy" and channels == 1 and len(data.class_names) == 2:
        return ["use --preset paper-unet instead to train U-Net as in its paper"]
    if preset != "microscopy" and channels == 3:
        return ["add --vgg16 imagenet to start from VGG16's ImageNet weights (a 553 MB download)"]
    return []


def _channels(data: SegmentationData) -> int:
    """Number of input channels: 1 if a sample of the RGB images is grey, else as in the images."""
    chosen = np.linspace(0, len(data) - 1, min(NUM_INSPECTED, len(data))).astype(int)
    images = [data.image(int(index)) for index in chosen]
    channels = images[0].shape[2]
    is_grey = channels == 3 and all((image == image[..., :1]).all() for image in images)
    return 1 if is_grey else channels
