"""`segmodels benchmark`: time and memory, compared with plain PyTorch and other engines."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.dataset import SPLITS, SegmentationData, open_data
from segmodels.evaluation import benchmark
from segmodels.evaluation.benchmark import STAGES
from segmodels.evaluation.engines import ENGINES
from segmodels.inference.comparison import served_sources
from segmodels.inference.onnx_export import export_onnx
from segmodels.inference.segmenter import Segmenter
from segmodels.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "avenue.jpg"


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "benchmark",
        help="measure time and memory",
        description="Measure time and memory of networks, compared with plain PyTorch (eager, "
        "float32), with the floor (the network's convolutions alone) and with other engines.",
    )
    command.add_argument(
        "--model",
        action="append",
        help="Hub id or folder; may be repeated; default: weights_card/*, or those in the "
        "environment variable SEGMODELS_MODELS",
    )
    command.add_argument(
        "--against",
        default="",
        metavar="ENGINES",
        help=f"also measure these engines on the CPU, comma-separated: {', '.join(ENGINES)}",
    )
    command.add_argument(
        "--case",
        action="append",
        choices=benchmark.CASES,
        help="input size; may be repeated; default: all",
    )
    command.add_argument(
        "--image",
        "--picture",
        type=Path,
        action="append",
        metavar="FILE",
        help="measure on this image; may be repeated; default: an example at 480x360 and 4000x3000",
    )
    command.add_argument(
        "--seconds", type=float, default=20, help="approximate time per measurement; default: 20"
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="also compare the class maps with those of plain PyTorch on this dataset",
    )
    command.add_argument(
        "--split", default="test", help=f"with --data: {', '.join(SPLITS)}; default: test"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    add_device(command)
    command.set_defaults(run=run)


@dataclass(frozen=True)
class Plan:
    """What to measure for each network.

    Attributes:
        cases: Keys of `benchmark.CASES`.
        engines: Keys of ENGINES; these engines are installed.
        images: Image files; the first one is the input of the forward passes.
        data: Dataset on which class maps are compared, if any.
        seconds: Approximate duration of each measurement.
    """

    cases: Sequence[str]
    engines: Sequence[str]
    images: Sequence[Path]
    data: SegmentationData | None
    seconds: float


def run(options: argparse.Namespace) -> int:
    if options.seconds <= 0:
        raise CommandError(f"--seconds must be positive, got {options.seconds}")
    engines, missing = _find_engines(options.against)
    for name, install in missing.items():
        print(f"skipping {name}, which is not installed: {install}", flush=True)
    data = open_data(options.data, options.split) if options.data else None
    report: dict[str, Any] = {"networks": {}, "not_installed": list(missing)}
    with _open_images(options.image) as images:
        plan = Plan(options.case or list(benchmark.CASES), engines, images, data, options.seconds)
        for source in options.model or served_sources(ROOT / "weights_card"):
            segmenter = open_segmenter(options, source)
            if engines and segmenter.device.type != "cpu":
                raise CommandError("--against requires the CPU: add --device cpu")
            report |= {
                "machine": benchmark.describe_machine(segmenter.device),
                "precision": segmenter.precision,
                "dtype": str(segmenter.dtype).removeprefix("torch."),
            }
            name = Path(source).name
            precision = _describe_precision(options, segmenter)
            print(f"\n{name} on {report['machine']}: {precision}", flush=True)
            report["networks"][name] = _measure(source, segmenter, plan)
    if options.json:
        write_text(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _describe_precision(options: argparse.Namespace, segmenter: Segmenter) -> str:
    reason = "chosen for this machine" if options.precision == "auto" else "set by --precision"
    return f"precision {segmenter.precision} ({segmenter.dtype}), {reason}"


def _find_engines(against: str) -> tuple[list[str], dict[str, str]]:
    """Return the installed engines of --against, and how to install each missing one."""
    names = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        raise CommandError(
            f"--against: unknown engine {', '.join(unknown)}; choose from {', '.join(ENGINES)}"
        )
    missing = {name: ENGINES[name].install for name in names if not ENGINES[name].is_installed()}
    return [name for name in names if name not in missing], missing


def _measure(source: str, segmenter: Segmenter, plan: Plan) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "network.onnx"
        if any(ENGINES[name].needs_onnx for name in plan.engines):
            export_onnx(segmenter.model, onnx)
        started = benchmark.start_engines(plan.engines, segmenter.model, segmenter.dtype, onnx)
        results["forward"] = benchmark.time_forward(
            segmenter, plan.images[0], plan.seconds, cases=plan.cases, engines=started
        )
        for case in plan.cases:
            print(_forward_table(case, results["forward"][case]), flush=True)
        print(_describe_floor(results["forward"]["floor"]), flush=True)
        results["memory"] = benchmark.measure_memory(
            source, segmenter.device, segmenter.precision, plan.engines, onnx
        )
        print(_memory_table(results["memory"]), flush=True)
    results["images"] = _time_stages(segmenter, plan)
    if plan.data is not None:
        results["quality"] = quality = benchmark.compare_with_plain(segmenter, plan.data)
        iou = quality["mean_iou"]
        print(
            f"{100 * quality['same_pixels']:.2f} % of pixels have the same class as in plain "
            f"PyTorch (mean over {quality['images']} images); mean IoU "
            f"{100 * iou['segmenter']:.2f}, plain {100 * iou['plain']:.2f}"
        )
    return results


def _time_stages(segmenter: Segmenter, plan: Plan) -> dict[str, Any]:
    results = {}
    for image in plan.images:
        try:
            results[image.name] = benchmark.time_stages(segmenter, image, plan.seconds)
        except ValueError as error:  # larger than a tile, if the model has no working size
            print(f"skipped: {error}", flush=True)
    print(_stages_table(results), flush=True)
    return results


def _forward_table(case: str, timings: dict[str, dict[str, float]]) -> str:
    head = (case, "seconds", "/plain", "/floor", "same pixels")
    rows = [
        (
            name,
            _seconds(row),
            f"{row['over_plain']:.2f}",
            f"{row['over_floor']:.2f}",
            f"{100 * row['same_pixels']:.2f} %" if "same_pixels" in row else "",
        )
        for name, row in timings.items()
    ]
    return _columns([head, *rows])


def _describe_floor(floor: dict[str, Any]) -> str:
    tried = ", ".join(f"{name} {s:.4f} s" for name, s in floor["seconds_at_480x360"].items())
    return (
        f"floor: the network's convolutions alone in {floor['in']}, the fastest of those tried at "
        f"480x360: {tried}"
    )


def _memory_table(sizes: dict[str, dict[str, int] | None]) -> str:
    rows = [
        (name, *(f"{size[key] / 2**20:.0f} MiB" if size else "unknown" for key in ("held", "peak")))
        for name, size in sizes.items()
    ]
    return _columns([("memory at 480x360", "between calls", "added by a call"), *rows])


def _stages_table(images: dict[str, dict[str, Any]]) -> str:
    head = ("image file", *STAGES, "call", "Pillow", "rest/forward", "rest/Pillow")
    rows = [
        (
            "x".join(map(str, row["size"])),
            *(_seconds(row[key]) for key in (*STAGES, "call", "pillow")),
            f"{row['rest_over_forward']:.2f}",
            f"{row['rest_over_pillow']:.2f}",
        )
        for row in images.values()
    ]
    return _columns([head, *rows])


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _seconds(timing: dict[str, float]) -> str:
    """Format the median ± half of the interquartile range."""
    return f"{timing['median']:.4f} ±{timing['spread'] / 2:.4f}"


@contextmanager
def _open_images(paths: list[Path] | None) -> Iterator[list[Path]]:
    """Yield the given paths; by default, of a noisy example at 480 x 360 and at 4000 x 3000."""
    if paths:
        yield paths
        return
    with tempfile.TemporaryDirectory() as folder:
        image = _example()
        noise = np.random.default_rng(0)
        examples = []
        for size in ((480, 360), (4000, 3000)):
            array = np.array(image.resize(size, Image.Resampling.BICUBIC), np.float32)
            array += noise.normal(0, 4, array.shape)
            examples.append(Path(folder) / f"{size[0]}x{size[1]}.jpg")
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(examples[-1], quality=95)
        yield examples


def _example() -> Image.Image:
    """Open the example of the repository; outside a clone, create 12 x 9 random colours, which
    become smooth when they are enlarged."""
    if EXAMPLE.is_file():
        return Image.open(EXAMPLE)
    colors = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(colors)
