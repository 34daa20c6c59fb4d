"""Time and memory of `Segmenter`, plain eager execution and other engines.

Run times are compared with a floor: the time of the network's convolutions alone, without pooling,
normalisation, activations or copies, in the fastest dtype and memory layout on this machine.

`python -m segmodels.evaluation.benchmark SOURCE DEVICE PRECISION BACKEND ONNX_FILE` prints the
memory use of one backend as JSON. It runs in a separate process, so that memory allocated for
other backends is neither counted nor reused.
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

Task = Callable[[], object]
CASES = {"480x360": (1, 360, 480), "1920x1080": (1, 1080, 1920), "8 of 480x360": (8, 360, 480)}
PROBE_SIZE = (360, 480)  # height and width for finding the fastest dtype and memory layout
MIN_ROUNDS, MAX_ROUNDS = 3, 25
STAGES = ("decode", "prepare", "forward", "argmax", "draw")
PLAIN, SEGMENTER = "plain fp32", "Segmenter"  # the latter is followed by its precision
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """Run times in seconds.

    Attributes:
        median: Median.
        spread: Interquartile range.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        low, median, high = np.percentile(seconds, [25, 50, 75])
        return cls(float(median), float(high - low))


def time_interleaved(
    tasks: dict[str, Task], seconds: float, device: torch.device
) -> dict[str, Timing]:
    """Time tasks in interleaved rounds (A B C A B C ...), so that changing load affects all alike.

    Args:
        tasks: The tasks by name.
        seconds: Approximate duration. There is one warm-up round, followed by 3 to 25 timed rounds.
        device: The device to synchronise before and after each task.

    Returns:
        The timing of each task.
    """
    durations: dict[str, list[float]] = {name: [] for name in tasks}
    start = time.perf_counter()
    for done in range(MAX_ROUNDS + 1):
        for name, task in tasks.items():
            durations[name].append(_seconds(task, device))
        if done >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
    return {name: Timing.of(values[1:]) for name, values in durations.items()}


def _seconds(task: Task, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    task()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def describe_machine(device: torch.device) -> str:
    """Describe the GPU, or the processor and number of threads, and the PyTorch version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{processor().description}, {threads} threads, torch {torch.__version__}"


# ---- the floor ----


@dataclass(frozen=True)
class ConvolutionCall:
    """A convolution and its input shape, (N, C, H, W)."""

    layer: nn.Conv2d | nn.ConvTranspose2d
    shape: torch.Size


def trace_convolutions(model: nn.Module, shape: Sequence[int]) -> list[ConvolutionCall]:
    """Run the model on an input of this shape and list its convolutions in execution order."""
    calls: list[ConvolutionCall] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs: calls.append(ConvolutionCall(layer, inputs[0].shape))
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


def convolutions_only(calls: Sequence[ConvolutionCall], dtype: torch.dtype, layout: Any) -> Task:
    """Create a task that runs each convolution on a random input of its own.

    Args:
        calls: The convolutions and their input shapes.
        dtype: Dtype of the weights and inputs.
        layout: Memory format of the weights and inputs.
    """
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
    """The fastest dtype and memory layout for a model's convolutions on this machine.

    Attributes:
        dtype: The fastest dtype.
        layout: The fastest memory format.
        tried: Timing of each combination, for one image of PROBE_SIZE.
    """

    dtype: torch.dtype
    layout: Any
    tried: dict[str, Timing]

    @property
    def name(self) -> str:
        """The key of the fastest combination in `tried`."""
        return _format_name(self.dtype, self.layout)


def _format_name(dtype: torch.dtype, layout: Any) -> str:
    return f"{dtype} {layout}".replace("torch.", "").replace("_format", "")


def find_floor(model: nn.Module, device: torch.device) -> Floor:
    """Time a model's convolutions in each dtype and memory layout.

    On a CPU, bfloat16 is tried only if the processor has fast bfloat16 instructions; without them,
    it takes minutes per network.
    """
    on_cpu = device.type == "cpu"
    half = [torch.bfloat16] * bf16_is_fast() if on_cpu else [torch.bfloat16, torch.float16]
    calls = trace_convolutions(model, (1, _channels(model), *PROBE_SIZE))
    choices = {
        _format_name(dtype, layout): (dtype, layout)
        for dtype in (torch.float32, *half)
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    tasks = {name: convolutions_only(calls, *choice) for name, choice in choices.items()}
    with torch.inference_mode():
        tried = time_interleaved(tasks, 0, device)
    return Floor(*choices[min(tried, key=lambda name: tried[name].median)], tried)


def _channels(model: nn.Module) -> int:
    assert isinstance(model, SegmentationModel)
    return model.in_channels


# ---- one network ----


def time_forward(
    segmenter: Segmenter,
    image: Path,
    seconds: float,
    *,
    cases: Sequence[str] = (),
    engines: dict[str, Forward] | None = None,
) -> dict[str, Any]:
    """Time the forward pass in plain eager float32, in `Segmenter` and in other engines.

    Args:
        segmenter: The network.
        image: Input image, scaled to the size of each case.
        seconds: Approximate duration of the measurement of each case.
        cases: Keys of CASES; all if empty.
        engines: Forward passes of other engines by their name in the report.

    Returns:
        "floor": the dtype and memory layout of the floor, and the times of all combinations. For
        each case, a row per engine and for the floor: median and spread in seconds, ratios of the
        median to plain execution and to the floor, and (except for the floor) the fraction of
        pixels with the same class as in `Segmenter`.
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
        plain_input = normalise(pixels.to(device).float() / 255, model)
        passes: dict[str, Callable[[], Tensor]] = {
            PLAIN: partial(model, plain_input),
            f"{SEGMENTER} {segmenter.precision}": partial(
                segmenter.network, segmenter.values(pixels)
            ),
            **{name: partial(forward, plain_input) for name, forward in (engines or {}).items()},
        }
        with torch.inference_mode():
            calls = trace_convolutions(model, plain_input.shape)
            lower_bound = convolutions_only(calls, floor.dtype, floor.layout)
            timings = time_interleaved({**passes, "floor": lower_bound}, seconds, device)
            maps = {name: forward().argmax(1) for name, forward in passes.items()}
        report[case] = _rows(timings, maps)
    return report


def _rows(timings: dict[str, Timing], maps: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    plain, floor = timings[PLAIN].median, timings["floor"].median
    reference = next(class_map for name, class_map in maps.items() if name.startswith(SEGMENTER))
    rows = {}
    for name, timing in timings.items():
        rows[name] = vars(timing) | {
            "over_plain": timing.median / plain,
            "over_floor": timing.median / floor,
        }
        if name in maps:
            rows[name]["same_pixels"] = (maps[name] == reference).float().mean().item()
    return rows


def _pixels(segmenter: Segmenter, image: DecodedImage, shape: tuple[int, int, int]) -> Tensor:
    """(N, in_channels, H, W) uint8: the image, stretched to (H, W) and repeated N times."""
    count, height, width = shape
    pixels = segmenter.pixels(image, max(height, width)).float()
    stretched = interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return stretched.round().to(torch.uint8).expand(count, -1, -1, -1)


def start_engines(
    names: Sequence[str], model: SegmentationModel, dtype: torch.dtype, onnx: Path
) -> dict[str, Forward]:
    """Start other engines.

    Args:
        names: Keys of ENGINES; these engines must be installed.
        model: The network.
        dtype: Dtype to compute in; engines that do not support it use float32.
        onnx: ONNX file of the network.

    Returns:
        {name and precision: forward pass}.
    """
    started = {}
    for name in names:
        engine = ENGINES[name]
        started[label(name, dtype)] = engine.start(model, engine.dtype(dtype), onnx)
    return started


def time_stages(segmenter: Segmenter, path: Path, seconds: float) -> dict[str, Any]:
    """Time the stages from an image file to its class map and overlay.

    Args:
        segmenter: The network.
        path: The image file.
        seconds: Approximate duration of the measurement.

    Returns:
        "size": (width, height) of the image. Timings of each of STAGES, of decoding with Pillow
        ("pillow") and of `segmenter(path)` ("call"). "rest_over_forward" and "rest_over_pillow":
        ratios of decode + prepare + argmax to the forward pass and to decoding with Pillow.

    Raises:
        ValueError: If the image does not fit into one tile.
    """
    durations: dict[str, list[float]] = {name: [] for name in (*STAGES, "pillow", "call")}
    size = (0, 0)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS + 1):
        size = _run_stages(segmenter, path, durations)
        durations["pillow"].append(_seconds(lambda: _decode(path), segmenter.device))
        durations["call"].append(_seconds(lambda: segmenter(path), segmenter.device))
        if done >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
    timings = {name: Timing.of(values[1:]) for name, values in durations.items()}
    rest = timings["decode"].median + timings["prepare"].median + timings["argmax"].median
    return {
        "size": list(size),
        **{name: vars(timing) for name, timing in timings.items()},
        "rest_over_forward": rest / timings["forward"].median,
        "rest_over_pillow": rest / timings["pillow"].median,
    }


def _decode(path: Path) -> object:
    """Decode an image to an RGB array with Pillow, as a baseline."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB") if image.mode != "RGB" else image)


@torch.inference_mode()
def _run_stages(
    segmenter: Segmenter, path: Path, durations: dict[str, list[float]]
) -> tuple[int, int]:
    """Run the steps of `Segmenter.__call__` and append the duration of each.

    Returns:
        (width, height) of the image.
    """
    timestamps = [time.perf_counter()]

    def lap() -> None:
        _synchronise(segmenter.device)
        timestamps.append(time.perf_counter())

    decoded = DecodedImage.read(path, channels=segmenter.model.in_channels)
    image = decoded.image
    lap()
    pixels = segmenter.pixels(decoded)
    height, width = pixels.shape[-2:]
    if height * width > segmenter.tile_size**2:
        raise ValueError(
            f"{path} is {width} x {height} pixels at the network's input, more than one tile of "
            f"{segmenter.tile_size} x {segmenter.tile_size}: use a smaller image"
        )
    whole = slice(0, height), slice(0, width)
    region, inside = with_context(segmenter.model, pixels, *whole)
    values = segmenter.values(region)
    lap()
    logits = segmenter.network(values)[(..., *inside)]
    lap()
    full_size = FullSize((height, width), (image.height, image.width))
    full_size.fill(logits.float().softmax(1)[0].cpu(), *whole)
    class_map = full_size.class_map()
    lap()
    model = segmenter.model
    Segmentation(
        image=image,
        class_map=class_map,
        make_confidence=full_size.confidence,
        class_names=model.class_names,
        palette=model.palette,
    ).overlay()
    lap()
    for name, seconds in zip(STAGES, np.diff(timestamps), strict=True):
        durations[name].append(seconds)
    return image.size


# ---- memory ----


def measure_memory(
    source: str,
    device: torch.device,
    precision: str,
    engines: Sequence[str] = (),
    onnx: Path | None = None,
) -> dict[str, dict[str, int] | None]:
    """Measure memory use for an image of 480 x 360 pixels, each backend in a separate process.

    Args:
        source: Hub id or folder of the network.
        device: Device to run on.
        precision: Precision of `Segmenter`, and of engines that support it.
        engines: Keys of ENGINES; these engines must be installed.
        onnx: ONNX file of the network, for the engines that need it.

    Returns:
        For each backend ("plain", "segmenter" and the engines), in bytes: "held", the memory in use
        between calls, including the weights, and "peak", the additional memory during a call. None
        if the measurement failed, for example because the system does not report memory use.
    """
    results: dict[str, dict[str, int] | None] = {}
    for backend in ("plain", "segmenter", *engines):
        command = [sys.executable, "-m", "segmodels.evaluation.benchmark", source, str(device)]
        command += [precision, backend, str(onnx or "")]
        process = subprocess.run(command, capture_output=True, text=True)
        results[backend] = json.loads(process.stdout) if process.returncode == 0 else None
    return results


def peak_bytes(task: Task, device: torch.device) -> int:
    """Measure the peak memory of a task, in excess of the memory in use before.

    Raises:
        OSError: If the system does not report memory use.
    """
    before = used_bytes(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        task()
        return torch.cuda.max_memory_allocated(device) - before
    CLEAR_REFS.write_text("5")  # resets VmHWM (man 5 proc)
    task()
    return 1024 * _kibibytes("VmHWM") - before


def used_bytes(device: torch.device) -> int:
    """Return the memory in use: allocated by PyTorch on a GPU, resident on a CPU.

    Raises:
        OSError: If the system does not report memory use.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        raise OSError(f"memory use of {device} cannot be measured; expected cpu or cuda")
    trim_memory()  # return freed memory to the system, so that reusing it is counted
    return 1024 * _kibibytes("VmRSS")


def _kibibytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1])


def load_backend(
    source: str, device: torch.device, precision: str, backend: str, onnx: Path
) -> Callable[[int, int], object]:
    """Load a backend.

    Args:
        source: Hub id or folder of the network.
        device: Device to run on.
        precision: Precision of `Segmenter`, and of engines that support it.
        backend: "plain", "segmenter" or a key of ENGINES.
        onnx: ONNX file of the network.

    Returns:
        A function of (height, width) that segments a grey image of that size.
    """
    model = load_model(source).eval()
    if backend == "segmenter":
        segmenter = Segmenter(model, device, precision)
        channels = 3 if model.in_channels == 1 else model.in_channels
        return lambda height, width: segmenter(np.full((height, width, channels), 128, np.uint8))
    forward: Forward = model.to(device)
    if backend != "plain":
        engine = ENGINES[backend]
        forward = engine.start(model, engine.dtype(pick_precision(precision, device)), onnx)
        model.to("meta")  # the engine has its own copy; normalisation needs no weights

    def segment(height: int, width: int) -> object:
        with torch.inference_mode():
            pixels = torch.full((1, model.in_channels, height, width), 0.5, device=device)
            return forward(normalise(pixels, model)).argmax(1).cpu()

    return segment


def main() -> int:
    """Print the memory use of one backend; exit status 1 if the system does not report it."""
    source, device_name, precision, backend, onnx = sys.argv[1:]
    device = torch.device(device_name)
    try:
        before = used_bytes(device)
        segment = load_backend(source, device, precision, backend, Path(onnx))
        segment(360, 480)  # compile, and load or compute everything that is kept between calls
        held = used_bytes(device) - before
        print(json.dumps({"held": held, "peak": peak_bytes(lambda: segment(360, 480), device)}))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# ---- quality ----


def plain_segmenter(model: SegmentationModel, device: torch.device) -> Segmenter:
    """Create a `Segmenter` that runs the model as is: eager, float32, batch norms not folded."""
    plain = Segmenter(model, device, "fp32")
    plain.network = copy.deepcopy(model).eval().to(device)
    return plain


def compare_with_plain(segmenter: Segmenter, data: SegmentationData) -> dict[str, Any]:
    """Compare the class maps of a `Segmenter` with those of plain eager float32 on a dataset.

    Args:
        segmenter: The network.
        data: A split of a dataset with the classes of the network.

    Returns:
        "images": their number. "same_pixels": fraction of pixels with equal classes, averaged over
        the images. "mean_iou": of "plain" and "segmenter", over all images.
    """
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
