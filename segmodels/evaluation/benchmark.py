"""Time and memory of plain eager execution, `Segmenter`, other engines and the floor, in turns.

The floor is what the network's convolutions alone cost on this machine, in the dtype and the
memory layout that it is fastest in: no pooling, normalisation, activation or copy.

`python -m segmodels.evaluation.benchmark SOURCE DEVICE PRECISION WAY [ONNX_FILE]` prints the memory
of one way as JSON: a process of its own, so that no other memory is counted or used again.
"""

import copy
import json
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
from torch.nn.functional import interpolate
from tqdm import tqdm

from segmodels.data.dataset import SegmentationData
from segmodels.evaluation import metrics
from segmodels.evaluation.engines import ENGINES, Forward, label
from segmodels.inference._upsample import FullSize
from segmodels.inference.decoded_image import DecodedImage
from segmodels.inference.optimize import bf16_is_fast, pick_precision
from segmodels.inference.results import Segmentation
from segmodels.inference.segmenter import Segmenter, normalise
from segmodels.inference.tiling import with_context
from segmodels.models.base import SegmentationModel, load_model
from segmodels.utils.cpu import processor
from segmodels.utils.malloc import trim_memory

Work = Callable[[], object]
CASES = {"480x360": (1, 360, 480), "1920x1080": (1, 1080, 1920), "8 of 480x360": (8, 360, 480)}
PROBE = (360, 480)  # height and width at which the fastest arithmetic is looked for
MIN_ROUNDS, MAX_ROUNDS = 3, 25
STAGES = ("decode", "prepare", "forward", "argmax", "draw")
PLAIN, OURS = "plain fp32", "Segmenter"  # before the latter's precision
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
    """The processor or the GPU, the threads and PyTorch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{processor().description}, {threads} threads, torch {torch.__version__}"


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


@dataclass(frozen=True)
class Floor:
    """The dtype and memory layout in which this machine computes a model's convolutions fastest.

    Attributes:
        dtype: The fastest dtype.
        layout: The fastest layout.
        tried: Seconds of every dtype and layout that was tried, on an image of the size PROBE.
    """

    dtype: torch.dtype
    layout: Any
    tried: dict[str, Timing]

    @property
    def name(self) -> str:
        """The fastest of `tried`."""
        return _arithmetic(self.dtype, self.layout)


def _arithmetic(dtype: torch.dtype, layout: Any) -> str:
    return f"{dtype} {layout}".replace("torch.", "").replace("_format", "")


def find_floor(model: nn.Module, device: torch.device) -> Floor:
    """Measure a model's convolutions in every dtype and memory layout. On a CPU, bfloat16 is tried
    only where it pays: without the instructions it takes minutes a network."""
    on_cpu = device.type == "cpu"
    half = [torch.bfloat16] * bf16_is_fast() if on_cpu else [torch.bfloat16, torch.float16]
    calls = convolutions(model, (1, _channels(model), *PROBE))
    choices = {
        _arithmetic(dtype, layout): (dtype, layout)
        for dtype in (torch.float32, *half)
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    works = {name: convolutions_alone(calls, *choice) for name, choice in choices.items()}
    with torch.inference_mode():
        tried = in_turns(works, 0, device)
    return Floor(*choices[min(tried, key=lambda name: tried[name].median)], tried)


def _channels(model: nn.Module) -> int:
    assert isinstance(model, SegmentationModel)
    return model.in_channels


# ---- one network ----


def forwards(
    segmenter: Segmenter,
    image: Path,
    seconds: float,
    *,
    cases: Sequence[str] = (),
    engines: dict[str, Forward] | None = None,
) -> dict[str, Any]:
    """Time plain eager float32, the `Segmenter`'s network, other engines and the floor.

    Args:
        segmenter: The network.
        image: What they segment, scaled to each case's size.
        seconds: About how long to measure a case.
        cases: Names in CASES; none: all of them.
        engines: Forward passes of other engines, by the names to report them under.

    Returns:
        "floor": how the floor was found; and of every case a row for each way: median and spread of
        its seconds, what they are of plain execution's and of the floor's, and the share of pixels
        that get the `Segmenter`'s class.
    """
    device = segmenter.device
    model = copy.deepcopy(segmenter.model).eval().to(device)
    floor = find_floor(model, device)
    report: dict[str, Any] = {
        "floor": {
            "in": floor.name,
            "seconds_at_480x360": {name: timing.median for name, timing in floor.tried.items()},
        }
    }
    decoded = DecodedImage.read(image, channels=model.in_channels)
    for case in cases or CASES:
        pixels = _pixels(segmenter, decoded, CASES[case])
        plain, ours = normalise(pixels.to(device).float() / 255, model), segmenter.values(pixels)
        passes: dict[str, Callable[[], Tensor]] = {
            PLAIN: partial(model, plain),
            f"{OURS} {segmenter.precision}": partial(segmenter.network, ours),
            **{name: partial(forward, plain) for name, forward in (engines or {}).items()},
        }
        with torch.inference_mode():
            alone = convolutions_alone(convolutions(model, plain.shape), floor.dtype, floor.layout)
            timings = in_turns({**passes, "floor": alone}, seconds, device)
            maps = {name: forward().argmax(1) for name, forward in passes.items()}
        report[case] = _rows(timings, maps)
    return report


def _rows(timings: dict[str, Timing], maps: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    plain, floor = timings[PLAIN].median, timings["floor"].median
    ours = next(class_map for name, class_map in maps.items() if name.startswith(OURS))
    rows = {}
    for name, timing in timings.items():
        rows[name] = vars(timing) | {
            "over_plain": timing.median / plain,
            "over_floor": timing.median / floor,
        }
        if name in maps:
            rows[name]["same_pixels"] = (maps[name] == ours).float().mean().item()
    return rows


def _pixels(segmenter: Segmenter, image: DecodedImage, shape: tuple[int, int, int]) -> Tensor:
    """(N, in_channels, H, W) uint8: the image N times, stretched to the size."""
    count, height, width = shape
    pixels = segmenter.pixels(image, max(height, width)).float()
    stretched = interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return stretched.round().to(torch.uint8).expand(count, -1, -1, -1)


def start_engines(
    names: Sequence[str], model: SegmentationModel, dtype: torch.dtype, onnx: Path
) -> dict[str, Forward]:
    """The forward passes of other engines, by their names and precisions.

    Args:
        names: Of installed ENGINES.
        model: The network.
        dtype: To compute in, for those that can.
        onnx: The network's ONNX file.
    """
    started = {}
    for name in names:
        engine = ENGINES[name]
        started[label(name, dtype)] = engine.start(model, engine.dtype(dtype), onnx)
    return started


def stages(segmenter: Segmenter, path: Path, seconds: float) -> dict[str, Any]:
    """From a file to the class map and its overlay: seconds of each of STAGES, of Pillow's decoding
    alone and of the whole call, and what all but the forward pass is of the forward pass and of the
    decoding. ValueError for an image of more than a tile."""
    taken: dict[str, list[float]] = {name: [] for name in (*STAGES, "pillow", "call")}
    size = (0, 0)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS + 1):
        size = _run_stages(segmenter, path, taken)
        taken["pillow"].append(_seconds(lambda: _decode(path), segmenter.device))
        taken["call"].append(_seconds(lambda: segmenter(path), segmenter.device))
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


def _decode(path: Path) -> object:
    """What anybody has to do: Pillow's decoding, to an array."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB") if image.mode != "RGB" else image)


@torch.inference_mode()
def _run_stages(segmenter: Segmenter, path: Path, taken: dict[str, list[float]]) -> tuple[int, int]:
    """`Segmenter.__call__`, a clock after each of its steps; the image's (width, height)."""
    clock = [time.perf_counter()]

    def lap() -> None:
        _synchronise(segmenter.device)
        clock.append(time.perf_counter())

    decoded = DecodedImage.read(path, channels=segmenter.model.in_channels)
    image = decoded.image
    lap()
    pixels = segmenter.pixels(decoded)
    height, width = pixels.shape[-2:]
    if height * width > segmenter.tile_size**2:
        raise ValueError(f"{path} has {width} x {height} pixels, more than a tile")
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


# ---- memory ----


def memory(
    source: str,
    device: torch.device,
    precision: str,
    engines: Sequence[str] = (),
    onnx: Path | None = None,
) -> dict[str, dict[str, int] | None]:
    """Memory for an image of 480 x 360, of each way in a process of its own.

    Args:
        source: Hub id or folder of the network.
        device: Where it runs.
        precision: Of the `Segmenter` and, where they have it, of the engines.
        engines: Names of installed ENGINES.
        onnx: The network's ONNX file, for engines.

    Returns:
        By way ("plain", "segmenter", an engine's name), bytes: "held" with the weights between
        calls, and "peak" at most on top of that in a call. None where the system does not tell.
    """
    found: dict[str, dict[str, int] | None] = {}
    for way in ("plain", "segmenter", *engines):
        command = [sys.executable, "-m", "segmodels.evaluation.benchmark", source, str(device)]
        command += [precision, way, str(onnx or "")]
        answer = subprocess.run(command, capture_output=True, text=True)
        found[way] = json.loads(answer.stdout) if answer.returncode == 0 else None
    return found


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most memory in use during `work`, less what was in use before. OSError where the system
    does not tell."""
    before = used_bytes(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    CLEAR_REFS.write_text("5")  # resets VmHWM (man 5 proc)
    work()
    return 1024 * _kibibytes("VmHWM") - before


def used_bytes(device: torch.device) -> int:
    """The memory in use. OSError where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        raise OSError(f"{device} does not tell its memory's use")
    trim_memory()  # what was freed goes back, so that it counts again
    return 1024 * _kibibytes("VmRSS")


def _kibibytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1])


def work_of(
    source: str, device: torch.device, precision: str, way: str, onnx: Path
) -> Callable[[int, int], object]:
    """Segmenting a grey image of (height, width) in that way."""
    model = load_model(source).eval()
    if way == "segmenter":
        segmenter = Segmenter(model, device, precision)
        channels = 3 if model.in_channels == 1 else model.in_channels
        return lambda height, width: segmenter(np.full((height, width, channels), 128, np.uint8))
    forward: Forward = model.to(device)
    if way != "plain":
        engine = ENGINES[way]
        forward = engine.start(model, engine.dtype(pick_precision(precision, device)), onnx)
        model.to("meta")  # the engine has the weights; normalisation needs none

    def segment(height: int, width: int) -> object:
        with torch.inference_mode():
            pixels = torch.full((1, model.in_channels, height, width), 0.5, device=device)
            return forward(normalise(pixels, model)).argmax(1).cpu()

    return segment


def main() -> int:
    """Print the memory of one way; exit status 1 where the system does not tell."""
    source, device, precision, way, onnx = sys.argv[1:]
    place = torch.device(device)
    try:
        before = used_bytes(place)
        work = work_of(source, place, precision, way, Path(onnx))
        work(360, 480)  # computes, compiles and loads what is kept
        held = used_bytes(place) - before
        print(json.dumps({"held": held, "peak": peak_bytes(lambda: work(360, 480), place)}))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# ---- quality ----


def plain_segmenter(model: SegmentationModel, device: torch.device) -> Segmenter:
    """A `Segmenter` whose network is the model as it is: eager, in float32, nothing folded."""
    plain = Segmenter(model, device, "fp32")
    plain.network = copy.deepcopy(model).eval().to(device)
    return plain


def quality(segmenter: Segmenter, data: SegmentationData) -> dict[str, Any]:
    """On a dataset: the share of pixels to which the `Segmenter` gives the class that plain eager
    float32 gives, and the mean IoU of both."""
    exact = plain_segmenter(segmenter.model, segmenter.device)
    num_classes = segmenter.model.num_classes
    empty = np.zeros((num_classes, num_classes), np.int64)
    matrices = {"plain": empty, "segmenter": empty}
    same = []
    for index in tqdm(range(len(data)), unit="image"):
        image, target = data.pair(index)
        maps = {"plain": exact(image).class_map, "segmenter": segmenter(image).class_map}
        same.append(float((maps["plain"] == maps["segmenter"]).mean()))
        for name, class_map in maps.items():
            matrices[name] = matrices[name] + metrics.confusion_matrix(
                target, class_map, num_classes
            )
    return {
        "images": len(data),
        "same_pixels": float(np.mean(same)),
        "mean_iou": {name: metrics.mean_iou(matrix) for name, matrix in matrices.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
