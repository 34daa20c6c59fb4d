"""`segmodels benchmark`: time and memory against plain execution, other engines and the floor."""

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
        "benchmark", help="time and memory against plain execution, other engines and the floor"
    )
    command.add_argument(
        "--model", action="append", help="Hub id or folder; again for more; default: weights_card/*"
    )
    command.add_argument(
        "--against",
        default="",
        metavar="ENGINES",
        help=f"measure these too, on the CPU, comma-separated: {', '.join(ENGINES)}",
    )
    command.add_argument(
        "--case",
        action="append",
        choices=benchmark.CASES,
        help="input size; again for more; default: all",
    )
    command.add_argument(
        "--image",
        "--picture",
        type=Path,
        action="append",
        help="an image of your own; again for more",
    )
    command.add_argument("--seconds", type=float, default=20, help="per measurement; default: 20")
    command.add_argument("--data", type=Path, help="compare the class maps too, on this dataset")
    command.add_argument("--split", default="test", help=f"{', '.join(SPLITS)}; default: test")
    command.add_argument("--json", type=Path, help="write the results here too")
    add_device(command)
    command.set_defaults(run=run)


@dataclass(frozen=True)
class Plan:
    """What is measured, the same for every network."""

    cases: Sequence[str]
    engines: Sequence[str]
    images: Sequence[Path]
    data: SegmentationData | None
    seconds: float


def run(options: argparse.Namespace) -> int:
    if options.seconds <= 0:
        raise CommandError(f"--seconds must be more than 0, got {options.seconds}")
    engines, missing = _engines(options.against)
    for name, install in missing.items():
        print(f"{name} is not installed and is left out: {install}", flush=True)
    data = open_data(options.data, options.split) if options.data else None
    report: dict[str, Any] = {"networks": {}, "not_installed": list(missing)}
    with _images(options.image) as images:
        plan = Plan(options.case or list(benchmark.CASES), engines, images, data, options.seconds)
        for source in options.model or served_sources(ROOT / "weights_card"):
            segmenter = open_segmenter(options, source)
            if engines and segmenter.device.type != "cpu":
                raise CommandError("--against measures on the CPU: add --device cpu")
            report |= {
                "machine": benchmark.machine(segmenter.device),
                "precision": segmenter.precision,
                "dtype": str(segmenter.dtype).removeprefix("torch."),
            }
            name = Path(source).name
            print(f"\n{name} on {report['machine']}: {_precision(options, segmenter)}", flush=True)
            report["networks"][name] = _measure(source, segmenter, plan)
    if options.json:
        write_text(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _precision(options: argparse.Namespace, segmenter: Segmenter) -> str:
    why = "chosen for this machine" if options.precision == "auto" else "as --precision says"
    return f"precision {segmenter.precision} ({segmenter.dtype}), {why}"


def _engines(against: str) -> tuple[list[str], dict[str, str]]:
    """The installed engines of --against; and of the others how to install them."""
    names = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        raise CommandError(
            f"--against must name engines of {', '.join(ENGINES)}, got {', '.join(unknown)}"
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
        results["forward"] = benchmark.forwards(
            segmenter, plan.images[0], plan.seconds, cases=plan.cases, engines=started
        )
        for case in plan.cases:
            print(_forward_table(case, results["forward"][case]), flush=True)
        print(_floor(results["forward"]["floor"]), flush=True)
        results["memory"] = benchmark.memory(
            source, segmenter.device, segmenter.precision, plan.engines, onnx
        )
        print(_memory_table(results["memory"]), flush=True)
    results["images"] = _stages(segmenter, plan)
    if plan.data is not None:
        results["quality"] = found = benchmark.quality(segmenter, plan.data)
        iou = found["mean_iou"]
        print(
            f"{100 * found['same_pixels']:.2f} % of {found['images']} images' pixels as in "
            f"float32; mean IoU {100 * iou['segmenter']:.2f}, in float32 {100 * iou['plain']:.2f}"
        )
    return results


def _stages(segmenter: Segmenter, plan: Plan) -> dict[str, Any]:
    found = {}
    for image in plan.images:
        try:
            found[image.name] = benchmark.stages(segmenter, image, plan.seconds)
        except ValueError as error:  # larger than a tile, where the model has no working size
            print(f"left out: {error}", flush=True)
    print(_stages_table(found), flush=True)
    return found


def _forward_table(case: str, ways: dict[str, dict[str, float]]) -> str:
    head = (case, "seconds", "/plain", "/floor", "same pixels")
    rows = [
        (
            name,
            _seconds(row),
            f"{row['over_plain']:.2f}",
            f"{row['over_floor']:.2f}",
            f"{100 * row['same_pixels']:.2f} %" if "same_pixels" in row else "",
        )
        for name, row in ways.items()
    ]
    return _columns([head, *rows])


def _floor(floor: dict[str, Any]) -> str:
    tried = ", ".join(f"{name} {s:.4f} s" for name, s in floor["seconds_at_480x360"].items())
    return (
        f"floor: the network's convolutions alone, in {floor['in']}, the fastest of those tried at "
        f"480x360: {tried}"
    )


def _memory_table(ways: dict[str, dict[str, int] | None]) -> str:
    rows = [
        (way, *(f"{size[key] / 2**20:.0f} MiB" if size else "unknown" for key in ("held", "peak")))
        for way, size in ways.items()
    ]
    return _columns([("memory at 480x360", "held", "more in a call"), *rows])


def _stages_table(images: dict[str, dict[str, Any]]) -> str:
    head = ("from file", *STAGES, "call", "Pillow", "rest/forward", "rest/Pillow")
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
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _seconds(timing: dict[str, float]) -> str:
    """The median, and half the range of the middle half."""
    return f"{timing['median']:.4f} ±{timing['spread'] / 2:.4f}"


@contextmanager
def _images(given: list[Path] | None) -> Iterator[list[Path]]:
    """The given images; or an example at 480 x 360 and, with a sensor's noise, at 12 megapixels."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        image = _example()
        noise = np.random.default_rng(0)
        paths = []
        for size in ((480, 360), (4000, 3000)):
            array = np.array(image.resize(size, Image.Resampling.BICUBIC), np.float32)
            array += noise.normal(0, 4, array.shape)
            paths.append(Path(folder) / f"{size[0]}x{size[1]}.jpg")
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=95)
        yield paths


def _example() -> Image.Image:
    """An example of the repository, or outside of it smooth colours."""
    if EXAMPLE.is_file():
        return Image.open(EXAMPLE)
    coarse = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse)
