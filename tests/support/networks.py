"""Small networks, and pictures for them."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from segmodels import FCN, Segmenter, SegNet, UNet
from segmodels.inference.comparison import ServedModel

NAMES = ["road", "sky", "car"]


def network(kind=SegNet, *, seed=0, **arguments):
    """A small network whose answers vary over the picture."""
    small = {FCN: {"head_channels": 8}, UNet: {"base_channels": 4}, SegNet: {"variant": "basic"}}
    torch.manual_seed(seed)
    model = kind(class_names=NAMES, **{**small[kind], **arguments})
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and name.startswith("score"):
            nn.init.normal_(layer.weight, std=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return model.eval()


def picture(height, width, seed=0):
    """Noise smoothed into patches, (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def tiny_network(kind, name, scene="road", class_names=("road", "sky", "car"), **arguments):
    """A served network of few weights, whose answers vary over the picture."""
    small = {FCN: {"head_channels": 8}, UNet: {"base_channels": 2}, SegNet: {"variant": "basic"}}
    torch.manual_seed(len(name))
    model = kind(class_names=list(class_names), **{**small[kind], **arguments})
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer_name.startswith("score"):
            nn.init.normal_(layer.weight, std=0.1)
    return ServedModel(name, scene, Segmenter(model.eval(), "cpu", "fp32"), f"weights_card/{name}")
