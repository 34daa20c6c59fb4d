"""A start from ImageNet: the 13 convolutions of VGG16 (Simonyan and Zisserman, ICLR 2015,
https://arxiv.org/abs/1409.1556, configuration D) into a network's encoder."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.download import fetch
from segmodels.hub.filenames import WEIGHTS_NAME
from segmodels.models.base import IMAGENET_MEAN, IMAGENET_STD, SegmentationModel

# Caffe's name of each convolution, and its index in torchvision's and timm's `features`.
LAYERS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}
# Oxford's release takes 255 * (rgb - mean), RGB in [0, 1]; torchvision's its own statistics.
OXFORD_MEAN = (0.48502, 0.45796, 0.40760)
OXFORD_STD = (1 / 255, 1 / 255, 1 / 255)


def load_vgg16(model: SegmentationModel, source: str | Path) -> None:
    """Copy VGG16's convolutions into the model's first 13, and set its `image_mean` and
    `image_std` to those that the weights were trained with.

    source: a safetensors file, a folder that holds `model.safetensors`, or a Hub id; named
        `conv1_1.weight` ... (Oxford's weights, RGB) or `features.0.weight` ... (torchvision's).
    Raises CheckpointError if the file lacks a layer or has it in another shape, ValueError if the
    model has no VGG16 encoder; the model is then as it was.
    """
    layers = encoder_convolutions(model)
    path = _weights_path(source)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            caffe = "conv1_1.weight" in names
            keys = [name if caffe else f"features.{index}" for name, index in LAYERS.items()]
            missing = [key for key in keys if not {f"{key}.weight", f"{key}.bias"} <= names]
            if missing:
                raise CheckpointError(
                    f"{path} lacks {', '.join(missing)}; expected VGG16's convolutions as "
                    "conv1_1.weight ... conv5_3.bias or features.0.weight ... features.28.bias"
                )
            tensors = [(file.get_tensor(f"{k}.weight"), file.get_tensor(f"{k}.bias")) for k in keys]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    for key, layer, (weight, bias) in zip(keys, layers, tensors, strict=True):
        if weight.shape != layer.weight.shape or bias.shape != (layer.out_channels,):
            raise CheckpointError(
                f"{path}: {key} is {list(weight.shape)} and {list(bias.shape)}, expected "
                f"{list(layer.weight.shape)} and [{layer.out_channels}]"
            )
    for layer, (weight, bias) in zip(layers, tensors, strict=True):
        layer.get_parameter("weight").data.copy_(weight)
        layer.get_parameter("bias").data.copy_(bias)
    model.image_mean = list(OXFORD_MEAN if caffe else IMAGENET_MEAN)
    model.image_std = list(OXFORD_STD if caffe else IMAGENET_STD)


def encoder_convolutions(model: SegmentationModel) -> list[nn.Conv2d]:
    """conv1_1 ... conv5_3: the model's first 13 convolutions. ValueError if they are not
    VGG16's."""
    if not has_vgg16_encoder(model):
        raise ValueError(
            f"this {type(model).__name__} has no VGG16 encoder for three channels: use FCN, "
            'SegNet(variant="vgg16") or UNet(encoder="vgg16")'
        )
    return _first_convolutions(model)


def has_vgg16_encoder(model: SegmentationModel) -> bool:
    layers = _first_convolutions(model)
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    return [layer.out_channels for layer in layers] == widths and layers[0].in_channels == 3


def _first_convolutions(model: SegmentationModel) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][: len(LAYERS)]


@torch.no_grad()
def calibrate(model: SegmentationModel, pixels: Tensor) -> None:
    """Make the encoder's batch normalisations the identity on `pixels`, so that the network starts
    with VGG16's own features, and scale each convolution so that its output has unit mean square.

    Fresh batch norms would forget VGG16's biases and the relation between its channels; with
    these it sees what it saw on ImageNet, up to one scale a layer (the data-dependent
    initialisation of Krahenbuhl et al., ICLR 2016, https://arxiv.org/abs/1511.06856).

    pixels: normalised float (N, 3, H, W), a few training pictures.
    """
    convolution_of = dict(_batch_norms(model))
    scale = torch.ones((), device=pixels.device)

    def before_convolution(layer: nn.Module, _: tuple[Tensor]) -> None:
        layer.get_parameter("bias").div_(scale)

    def before_batch_norm(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> Tensor:
        nonlocal scale
        own = inputs[0].square().mean().sqrt()
        x = inputs[0] / own
        for parameter in convolution_of[layer].parameters():
            parameter.div_(own)
        scale = scale * own
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        mean.copy_(x.mean((0, 2, 3)))
        variance.copy_(x.var((0, 2, 3)))
        layer.get_parameter("weight").copy_((variance + layer.eps).sqrt())
        layer.get_parameter("bias").copy_(mean)
        return x

    was_training = model.training
    with ExitStack() as hooks:
        for batch_norm, convolution in convolution_of.items():
            hooks.enter_context(convolution.register_forward_pre_hook(before_convolution))
            hooks.enter_context(batch_norm.register_forward_pre_hook(before_batch_norm))
        model.eval()(pixels)
    model.train(was_training)


def _batch_norms(model: SegmentationModel) -> Iterator[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """The batch norms behind the encoder's convolutions, each with its convolution."""
    encoder = set(encoder_convolutions(model))
    before: nn.Conv2d | None = None
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            before = layer if layer in encoder else None
        elif isinstance(layer, nn.BatchNorm2d) and before is not None:
            yield layer, before


def encoder_layers(model: SegmentationModel, convolutions: int = 13) -> list[nn.Module]:
    """The encoder's first `convolutions`, 0 to 13 of them, and then the batch norms that follow
    them."""
    chosen = encoder_convolutions(model)[:convolutions]
    return [*chosen, *(bn for bn, convolution in _batch_norms(model) if convolution in chosen)]


def _weights_path(source: str | Path) -> Path:
    path = Path(source).expanduser()
    return path if path.is_file() else fetch(str(source), WEIGHTS_NAME)
