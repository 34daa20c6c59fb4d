"""Time and memory: plain eager execution, `Segmenter`, and the floor, in one run and in turns.

The floor is what the network's convolutions alone cost on this machine, in the dtype and the
memory layout that it is fastest in: no pooling, normalisation, activation or copy.
"""

import copy
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from segmodels.data.dataset import SegmentationData
from segmodels.evaluation import metrics
from segmodels.inference._upsample import FullSize
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.optimize import bf16_is_fast
from segmodels.inference.results import Segmentation
from segmodels.inference.segmenter import Segmenter
from segmodels.inference.tiling import with_context
from segmodels.models.base import SegmentationModel

Work = Callable[[], object]
CASES = {"480x360": (1, 360, 480), "1920x1080": (1, 1080, 1920), "8 of 480x360": (8, 360, 480)}
PROBE = (360, 480)  # height and width on which the fastest arithmetic is looked for
MIN_ROUNDS, MAX_ROUNDS = 3, 25
STAGES = ("decode", "prepare", "forward", "argmax", "draw")


@dataclass(frozen=True)
class Timing:
    """Seconds of some runs: their median, and the range of the middle half."""

    median: float
    spread: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        low, median, high = np.percentile(seconds, [25, 50, 75])
        return cls(float(median), float(high - low))


def in_turns(works: dict[str, Work], seconds: float, device: torch.device) -> dict[str, Timing]:
    """Time the works A B C A B C ..., after a run of each that does not count, for about so many
    seconds, in 3 to 25 rounds."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    start = time.perf_counter()
    for done in range(MAX_ROUNDS + 1):
        for name, work in works.items():
            taken[name].append(_seconds(work, device))
        if done >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
    return {name: Timing.of(values[1:]) for name, values in taken.items()}


def _seconds(work: Work, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def machine(device: torch.device) -> str:
    """The processor or the GPU, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        processor = found[1] if found else processor
    return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"


# ---- the floor ----


@dataclass(frozen=True)
class Call:
    """A convolution and the shape, (N, C, H, W), of what it is given."""

    layer: nn.Conv2d | nn.ConvTranspose2d
    shape: torch.Size


def convolutions(model: nn.Module, shape: Sequence[int]) -> list[Call]:
    """Every convolution that the model computes for an input of this shape, in order."""
    calls: list[Call] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs: calls.append(Call(layer, inputs[0].shape))
        )
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    try:
        with torch.inference_mode():
            model(torch.zeros(*shape, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def convolutions_alone(calls: Sequence[Call], dtype: torch.dtype, layout: Any) -> Work:
    """The calls on random inputs, each on its own."""
    prepared: list[tuple[nn.Module, Tensor]] = []
    for call in calls:
        layer = copy.deepcopy(call.layer).to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
        pixels = torch.randn(call.shape, device=layer.weight.device)
        prepared.append((layer, pixels.to(dtype, memory_format=layout)))

    def run() -> None:
        for layer, pixels in prepared:
            layer(pixels)

    return run


def fastest_arithmetic(model: nn.Module, device: torch.device) -> tuple[torch.dtype, Any]:
    """The dtype and memory layout in which this machine computes the model's convolutions
    fastest, of those measured on a picture of the size PROBE; on a CPU bfloat16 only if it pays:
    without the instructions it takes minutes a network."""
    on_cpu = device.type == "cpu"
    half = [torch.bfloat16] * bf16_is_fast() if on_cpu else [torch.bfloat16, torch.float16]
    calls = convolutions(model, (1, _channels(model), *PROBE))
    layouts = [torch.contiguous_format, torch.channels_last]
    works: dict[Any, Work] = {
        (dtype, layout): convolutions_alone(calls, dtype, layout)
        for dtype in (torch.float32, *half)
        for layout in layouts
    }
    with torch.inference_mode():
        timings = in_turns(works, 0, device)
    return min(timings, key=lambda choice: timings[choice].median)  # type: ignore[return-value]


def _channels(model: nn.Module) -> int:
    assert isinstance(model, SegmentationModel)
    return model.in_channels


# ---- one network ----


def forwards(segmenter: Segmenter, seconds: float) -> dict[str, dict[str, Any]]:
    """For every case of CASES: seconds of plain eager float32, of the `Segmenter`'s network and of
    the floor, and what the second is of the others."""
    device = segmenter.device
    model = copy.deepcopy(segmenter.model).eval().to(device)
    dtype, layout = fastest_arithmetic(model, device)
    rows: dict[str, dict[str, Any]] = {}
    for name, (count, height, width) in CASES.items():
        pixels = torch.randint(0, 256, (count, model.in_channels, height, width), dtype=torch.uint8)
        plain, ours = pixels.to(device).float() / 255, segmenter.values(pixels)
        calls = convolutions(model, plain.shape)
        with torch.inference_mode():
            works: dict[str, Work] = {
                "plain": partial(model, plain),
                "segmenter": partial(segmenter.network, ours),
                "floor": convolutions_alone(calls, dtype, layout),
            }
            timings = in_turns(works, seconds, device)
        rows[name] = {key: vars(timing) for key, timing in timings.items()}
        median = {key: timing.median for key, timing in timings.items()}
        rows[name]["over_plain"] = median["segmenter"] / median["plain"]
        rows[name]["over_floor"] = median["segmenter"] / median["floor"]
        rows[name]["floor_in"] = f"{dtype}, {layout}".replace("torch.", "")
    return rows


def stages(segmenter: Segmenter, picture: Path, seconds: float) -> dict[str, Any]:
    """From a file to the class map and its overlay: seconds of each of STAGES, of Pillow's decoding
    alone and of the whole call, and what all but the forward pass is of the forward pass and of the
    decoding. ValueError for a picture of more than a tile."""
    taken: dict[str, list[float]] = {name: [] for name in (*STAGES, "pillow", "call")}
    size = (0, 0)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS + 1):
        size = _run_stages(segmenter, picture, taken)
        taken["pillow"].append(_seconds(lambda: _decode(picture), segmenter.device))
        taken["call"].append(_seconds(lambda: segmenter(picture), segmenter.device))
        if done >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
    timings = {name: Timing.of(values[1:]) for name, values in taken.items()}
    rest = timings["decode"].median + timings["prepare"].median + timings["argmax"].median
    return {
        "size": list(size),
        **{name: vars(timing) for name, timing in timings.items()},
        "rest_over_forward": rest / timings["forward"].median,
        "rest_over_pillow": rest / timings["pillow"].median,
    }


def _decode(picture: Path) -> object:
    """What anybody has to do: Pillow's decoding, to an array."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB") if image.mode != "RGB" else image)


@torch.inference_mode()
def _run_stages(
    segmenter: Segmenter, picture: Path, taken: dict[str, list[float]]
) -> tuple[int, int]:
    """`Segmenter.__call__`, a clock after each of its steps; the picture's (width, height)."""
    clock = [time.perf_counter()]

    def lap() -> None:
        _synchronise(segmenter.device)
        clock.append(time.perf_counter())

    decoded = DecodedImage.read(picture)
    image = decoded.image
    lap()
    pixels = segmenter.pixels(decoded)
    height, width = pixels.shape[-2:]
    if height * width > segmenter.tile_size**2:
        raise ValueError(f"{picture} has {width} x {height} pixels, more than a tile")
    everything = slice(0, height), slice(0, width)
    region, inside = with_context(segmenter.model, pixels, *everything)
    values = segmenter.values(region)
    lap()
    logits = segmenter.network(values)[(..., *inside)]
    lap()
    answer = FullSize((height, width), (image.height, image.width))
    answer.fill(logits.float().softmax(1)[0].cpu(), *everything)
    class_map = answer.class_map()
    lap()
    model = segmenter.model
    Segmentation(
        image=image,
        class_map=class_map,
        make_confidence=answer.confidence,
        class_names=model.class_names,
        palette=model.palette,
    ).overlay()
    lap()
    for name, seconds in zip(STAGES, np.diff(clock), strict=True):
        taken[name].append(seconds)
    return image.size


def peaks(source: str, device: torch.device) -> dict[str, int | None]:
    """Peak memory over the weights for a picture of 480 x 360, bytes, of plain eager float32 and of
    the `Segmenter`, each in a process of its own; None where the system does not tell."""
    found: dict[str, int | None] = {}
    for way in ("plain", "segmenter"):
        command = [sys.executable, "-m", "segmodels.evaluation.peak", source, str(device), way]
        answer = subprocess.run(command, capture_output=True, text=True)
        found[way] = int(answer.stdout) if answer.returncode == 0 else None
    return found


def plain_segmenter(model: SegmentationModel, device: torch.device) -> Segmenter:
    """A `Segmenter` whose network is the model as it is: eager, in float32, nothing folded."""
    plain = Segmenter(model, device, "fp32")
    plain.network = copy.deepcopy(model).eval().to(device)
    return plain


def quality(segmenter: Segmenter, data: SegmentationData) -> dict[str, Any]:
    """On a data set: the share of pixels to which the `Segmenter` gives the class that plain eager
    float32 gives, and the mean IoU of both."""
    exact = plain_segmenter(segmenter.model, segmenter.device)
    num_classes = segmenter.model.num_classes
    empty = np.zeros((num_classes, num_classes), np.int64)
    matrices = {"plain": empty, "segmenter": empty}
    same = []
    for index in tqdm(range(len(data)), unit="picture"):
        picture, target = data.pair(index)
        maps = {"plain": exact(picture).class_map, "segmenter": segmenter(picture).class_map}
        same.append(float((maps["plain"] == maps["segmenter"]).mean()))
        for name, class_map in maps.items():
            matrices[name] = matrices[name] + metrics.confusion_matrix(
                target, class_map, num_classes
            )
    return {
        "pictures": len(data),
        "same_pixels": float(np.mean(same)),
        "mean_iou": {name: metrics.mean_iou(matrix) for name, matrix in matrices.items()},
    }
