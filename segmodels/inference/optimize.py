"""A network made ready to run: where, in which precision, and with what can be computed before."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segmodels.models.base import SegmentationModel
from segmodels.models.layers.winograd import Winograd, WinogradConv2d, is_faster
from segmodels.utils.cpu import processor

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str | torch.device) -> torch.device:
    """The named device, or for "auto" the best that is there: CUDA, then MPS, then the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "fp32", "bf16" or "fp16"; for "auto" what the device is fastest in."""
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
    """The name of a dtype in `PRECISIONS`."""
    return next(name for name, value in PRECISIONS.items() if value is dtype)


def bf16_is_fast() -> bool:
    """Whether "auto" computes in bfloat16 on this CPU.

    It follows from what the processor is (see `segmodels.utils.cpu`) and not from a measurement, so
    that every process on a machine, however busy, gives the same answer for the same image.
    """
    return torch.backends.mkldnn.is_available() and processor().bf16_is_fast


def fold_batch_norms(network: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it, in place; evaluation mode only."""
    convolution: nn.Conv2d | None = None
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d) and convolution is not None:
                fused = fuse_conv_bn_eval(convolution, layer)
                convolution.weight, convolution.bias = fused.weight, fused.bias
                parent._modules[name] = nn.Identity()
            convolution = layer if isinstance(layer, nn.Conv2d) else None


def use_winograd(network: nn.Module, kind: type[Winograd] | type[WinogradConv2d]) -> None:
    """Put a `kind` in the place of every convolution for which it pays."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and is_faster(layer, kind.min_pairs):
                parent._modules[name] = kind(layer)


def prepared(model: SegmentationModel, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of the model for inference alone: batch norms folded, channels last; in float32 on the
    CPU with fewer multiplications."""
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
