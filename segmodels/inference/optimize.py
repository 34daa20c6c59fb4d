"""Preparation of networks for inference: device, precision, batch norm folding and Winograd."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segmodels.models.base import SegmentationModel
from segmodels.models.layers.winograd import Winograd, WinogradConv2d, is_faster
from segmodels.utils.cpu import processor

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str | torch.device) -> torch.device:
    """The given device; for "auto", the first available one of CUDA, MPS and CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "fp32", "bf16" or "fp16"; for "auto", the fastest one on the device.

    Raises:
        ValueError: If the name is not one of these.
    """
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != "auto":
        raise ValueError(f'precision must be "auto", "fp32", "bf16" or "fp16", got {precision!r}')
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if bf16_is_fast() else torch.float32


def precision_of(dtype: torch.dtype) -> str:
    """The name of a dtype, a key of `PRECISIONS`."""
    return next(name for name, value in PRECISIONS.items() if value is dtype)


def bf16_is_fast() -> bool:
    """Whether "auto" means bfloat16 on this CPU.

    This depends on the processor model (see `segmodels.utils.cpu`) and not on a measurement, so
    that all processes on a machine give the same result for an image, regardless of its load.
    """
    return torch.backends.mkldnn.is_available() and processor().bf16_is_fast


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the preceding convolution, in place; for evaluation mode only."""
    convolution: nn.Conv2d | None = None
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d) and convolution is not None:
                fused = fuse_conv_bn_eval(convolution, layer)
                convolution.weight, convolution.bias = fused.weight, fused.bias
                parent._modules[name] = nn.Identity()
            convolution = layer if isinstance(layer, nn.Conv2d) else None


def use_winograd(network: nn.Module, kind: type[Winograd] | type[WinogradConv2d]) -> None:
    """Replace convolutions by `kind`, in place, wherever it is faster."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and is_faster(layer, kind.min_pairs):
                parent._modules[name] = kind(layer)


def prepared(model: SegmentationModel, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Copy the model for inference only: batch norms are folded, memory is in channels-last format
    and, in float32 on the CPU, convolutions use Winograd's algorithm."""
    network = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(network)
    spans = network.float32_layers() if dtype is torch.bfloat16 else {}
    exact = {name: copy.deepcopy(network.get_submodule(name)) for name in spans}
    network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, following in spans.items():
        layer = exact[name].to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.set_submodule(name, layer)
        network.get_submodule(following).register_forward_pre_hook(_to_its_dtype)
    if device.type == "cpu" and dtype is torch.float32:
        use_winograd(network, Winograd)
    return network


def _to_its_dtype(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(next(layer.parameters()).dtype),)
