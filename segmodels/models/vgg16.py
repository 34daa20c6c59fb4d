"""Initialisation of encoders with ImageNet weights: the 13 convolutions of VGG16 (Simonyan and
Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556, configuration D)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.download import fetch
from segmodels.hub.filenames import WEIGHTS_NAME
from segmodels.models.base import IMAGENET_MEAN, IMAGENET_STD, SegmentationModel

# The name of each convolution in Caffe, and its index in `features` of torchvision and timm.
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
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# The source "imagenet": torchvision's weights (IMAGENET1K_V1) as timm's safetensors on the Hub.
IMAGENET = "imagenet"
IMAGENET_REPOSITORY = "timm/vgg16.tv_in1k"
# Oxford's weights expect 255 * (rgb - mean) for RGB in [0, 1]; torchvision's use IMAGENET_MEAN/STD.
OXFORD_MEAN = (0.48502, 0.45796, 0.40760)
OXFORD_STD = (1 / 255, 1 / 255, 1 / 255)


def load_vgg16(model: SegmentationModel, source: str | Path) -> None:
    """Copy VGG16's convolutions into the model's first 13.

    `image_mean` and `image_std` are set to those that the weights were trained with. If the model
    does not have 3 input channels, the first layer is adapted, see `adapt_to_channels`.

    Args:
        model: A network with a VGG16 encoder. It is not modified if an error is raised.
        source: "imagenet" for torchvision's weights from the Hub (`timm/vgg16.tv_in1k`, 553 MB), a
            safetensors file, a folder with `model.safetensors`, or a Hub id. The tensors are named
            `conv1_1.weight` ... (Oxford's weights, RGB) or `features.0.weight` ... (torchvision's).

    Raises:
        CheckpointError: If the weights cannot be loaded, or a layer is missing or has another
            shape.
        ValueError: If the model has no VGG16 encoder.
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
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error
    for key, (weight, bias), expected in zip(keys, tensors, _shapes(3), strict=True):
        if (list(weight.shape), list(bias.shape)) != expected:
            raise CheckpointError(
                f"{path}: weight and bias of {key} have shapes {list(weight.shape)} and "
                f"{list(bias.shape)}, expected {expected[0]} and {expected[1]}"
            )
    mean, std = map(list, (OXFORD_MEAN, OXFORD_STD) if caffe else (IMAGENET_MEAN, IMAGENET_STD))
    if model.in_channels != 3:
        weight, bias, mean, std = adapt_to_channels(*tensors[0], mean, std, model.in_channels)
        tensors[0] = weight, bias
    for layer, (weight, bias) in zip(layers, tensors, strict=True):
        layer.get_parameter("weight").data.copy_(weight)
        layer.get_parameter("bias").data.copy_(bias)
    model.image_mean, model.image_std = mean, std


def adapt_to_channels(
    weight: Tensor, bias: Tensor, mean: Sequence[float], std: Sequence[float], in_channels: int
) -> tuple[Tensor, Tensor, list[float], list[float]]:
    """Adapt the first convolution from RGB to another number of channels.

    The kernels are summed over RGB and divided evenly among the new channels, so that an image
    whose channels are all equal has the same features as the corresponding grey RGB image
    (approximately so in the outermost pixels).

    Args:
        weight: (out, 3, k, k), of the convolution on normalised RGB.
        bias: (out,).
        mean: Mean of R, G and B for pixels in [0, 1].
        std: Standard deviation of R, G and B.
        in_channels: Number of channels of the new convolution.

    Returns:
        Weight (out, in_channels, k, k) and bias (out,) of the new convolution, and the mean and
        standard deviation of each channel.
    """
    means, stds = torch.tensor(mean), torch.tensor(std)
    new_mean, new_std = means.mean(), stds.mean()
    # sum_c w_c (x - mean_c) / std_c = w (x - new_mean) / new_std + shift
    per_intensity = weight.float() / stds[:, None, None]
    new_weight = new_std * per_intensity.sum(1, keepdim=True) / in_channels
    shift = (per_intensity * (new_mean - means)[:, None, None]).sum((1, 2, 3))
    return (
        new_weight.expand(-1, in_channels, -1, -1).contiguous(),
        bias + shift,
        [float(new_mean)] * in_channels,
        [float(new_std)] * in_channels,
    )


def encoder_convolutions(model: SegmentationModel) -> list[nn.Conv2d]:
    """Return conv1_1 ... conv5_3, the model's first 13 convolutions.

    Raises:
        ValueError: If they do not match those of VGG16.
    """
    if not has_vgg16_encoder(model):
        found = [layer.out_channels for layer in _first_convolutions(model)]
        raise ValueError(
            f"this {model.display_name} has no VGG16 encoder: its first convolutions have {found} "
            f'channels, expected {list(WIDTHS)}; use FCN, SegNet with variant="vgg16" or UNet with '
            'encoder="vgg16"'
        )
    return _first_convolutions(model)


def has_vgg16_encoder(model: SegmentationModel) -> bool:
    """Whether the first 13 convolutions match VGG16, for any number of input channels."""
    return [list(layer.weight.shape) for layer in _first_convolutions(model)] == [
        shape for shape, _ in _shapes(model.in_channels)
    ]


def _shapes(in_channels: int) -> list[tuple[list[int], list[int]]]:
    """The shapes of weight and bias of each convolution."""
    pairs = zip((in_channels, *WIDTHS[:-1]), WIDTHS, strict=True)
    return [([channels, before, 3, 3], [channels]) for before, channels in pairs]


def _first_convolutions(model: SegmentationModel) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][: len(LAYERS)]


@torch.no_grad()
def calibrate(model: SegmentationModel, pixels: Tensor) -> None:
    """Initialise the encoder's batch norms to the identity on `pixels` and scale each convolution
    to outputs of unit mean square, so that training starts from VGG16's features.

    Default batch norms would discard VGG16's biases and the scales of its channels. After
    calibration, the encoder computes the same features as VGG16, up to one scale per layer
    (data-dependent initialisation, Krahenbuhl et al., ICLR 2016, https://arxiv.org/abs/1511.06856).

    Args:
        model: A network with a VGG16 encoder and batch norms.
        pixels: Normalised float (N, in_channels, H, W), some training images.
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
    """The batch norms of the encoder, each with the convolution before it."""
    encoder = set(encoder_convolutions(model))
    before: nn.Conv2d | None = None
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            before = layer if layer in encoder else None
        elif isinstance(layer, nn.BatchNorm2d) and before is not None:
            yield layer, before


def encoder_layers(model: SegmentationModel, convolutions: int = 13) -> list[nn.Module]:
    """Return the encoder's first 0 to 13 convolutions, followed by their batch norms."""
    chosen = encoder_convolutions(model)[:convolutions]
    return [*chosen, *(bn for bn, convolution in _batch_norms(model) if convolution in chosen)]


def _weights_path(source: str | Path) -> Path:
    if source == IMAGENET:
        return fetch(IMAGENET_REPOSITORY, WEIGHTS_NAME)
    path = Path(source).expanduser()
    return path if path.is_file() else fetch(str(source), WEIGHTS_NAME)
