"""Other inference engines on the CPU, for `segmodels benchmark --against`.

Each computes the logits of a network in the requested precision, or in float32 if it does not
support it, with as many threads as PyTorch.
"""

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from segmodels.inference.onnx_export import INPUT, OUTPUT
from segmodels.inference.optimize import precision_of
from segmodels.models.base import SegmentationModel

Forward = Callable[[Tensor], Tensor]  # normalised float32 (N, C, H, W) -> logits

COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")
ONNX_MODULES = ("onnx", "onnxruntime", "onnxscript")  # the extra "export"


@dataclass(frozen=True)
class Engine:
    """An inference engine.

    Attributes:
        dtypes: Supported dtypes besides float32.
        modules: Required Python modules.
        install: How to install the engine.
        start: Creates the forward pass from a network, a supported dtype and the network's ONNX
            file.
    """

    dtypes: tuple[torch.dtype, ...]
    modules: tuple[str, ...]
    install: str
    start: Callable[[SegmentationModel, torch.dtype, Path], Forward]

    @property
    def needs_onnx(self) -> bool:
        """Whether the engine loads the network from an ONNX file."""
        return bool(self.modules)

    def is_installed(self) -> bool:
        """Whether the engine is installed; checked without importing it."""
        if not self.needs_onnx:
            return any(map(shutil.which, COMPILERS))
        return all(find_spec(module) is not None for module in self.modules)

    def dtype(self, requested: torch.dtype) -> torch.dtype:
        """Return the requested dtype if it is supported, else float32."""
        return requested if requested in self.dtypes else torch.float32


def _start_onnxruntime(model: SegmentationModel, dtype: torch.dtype, onnx: Path) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])


def _start_openvino(model: SegmentationModel, dtype: torch.dtype, onnx: Path) -> Forward:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if dtype is torch.bfloat16 else "f32",
    }
    network = openvino.Core().compile_model(onnx, "CPU", options)
    return lambda pixels: torch.from_numpy(network(pixels.numpy())[0])


def _start_compiled(model: SegmentationModel, dtype: torch.dtype, onnx: Path) -> Forward:
    network = copy.deepcopy(model).eval().requires_grad_(False)
    network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(network, dynamic=False, options={"freezing": True})

    def forward(pixels: Tensor) -> Tensor:
        logits: Tensor = compiled(pixels.to(dtype, memory_format=torch.channels_last))
        return logits.float()

    return forward


ENGINES = {
    "onnxruntime": Engine(
        dtypes=(),
        modules=ONNX_MODULES,
        install='pip install "segmodels[export]"',
        start=_start_onnxruntime,
    ),
    "openvino": Engine(
        dtypes=(torch.bfloat16,),
        modules=(*ONNX_MODULES, "openvino"),
        install='pip install "segmodels[benchmark]"',
        start=_start_openvino,
    ),
    "torch.compile": Engine(
        dtypes=(torch.bfloat16, torch.float16),
        modules=(),
        install="install a C++ compiler, such as g++",
        start=_start_compiled,
    ),
}


def label(name: str, dtype: torch.dtype) -> str:
    """Name of an engine with the precision that it uses if `dtype` is requested."""
    return f"{name} {precision_of(ENGINES[name].dtype(dtype))}"
