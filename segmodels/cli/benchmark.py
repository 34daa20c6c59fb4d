"""`segmodels benchmark`: time and memory against plain eager execution and the floor."""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.dataset import SPLITS, SegmentationData, open_data
from segmodels.inference.segmenter import Segmenter
from segmodels.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "avenue.jpg"


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "benchmark", help="time and memory against plain execution and the floor"
    )
    command.add_argument(
        "--model", action="append", help="Hub id or folder; again for more; default: weights_card/*"
    )
    command.add_argument(
        "--picture", type=Path, action="append", help="for the way from file to class map"
    )
    command.add_argument("--seconds", type=float, default=20, help="a measurement; default: 20")
    command.add_argument("--data", type=Path, help="compare the answers too, on this data set")
    command.add_argument("--split", default="test", help=f"{', '.join(SPLITS)}; default: test")
    command.add_argument("--json", type=Path, help="write the figures here too")
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.evaluation.benchmark import machine
    from segmodels.inference.comparison import served_sources

    if options.seconds <= 0:
        raise CommandError(f"--seconds must be more than 0, got {options.seconds}")
    data = open_data(options.data, options.split) if options.data else None
    report: dict[str, Any] = {"networks": {}}
    with _pictures(options.picture) as pictures:
        for source in options.model or served_sources(ROOT / "weights_card"):
            segmenter = open_segmenter(options, source)
            report |= {"machine": machine(segmenter.device), "precision": str(segmenter.dtype)}
            name = Path(source).name
            print(f"\n{name}, {report['machine']}", flush=True)
            report["networks"][name] = _measure(source, segmenter, pictures, data, options.seconds)
    if options.json:
        write_text(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _measure(
    source: str,
    segmenter: Segmenter,
    pictures: list[Path],
    data: SegmentationData | None,
    seconds: float,
) -> dict[str, Any]:
    from segmodels.evaluation import benchmark

    figures: dict[str, Any] = {"forward": benchmark.forwards(segmenter, seconds)}
    print(_forward_table(figures["forward"]), flush=True)
    figures["pictures"] = {}
    for picture in pictures:
        try:
            figures["pictures"][picture.name] = benchmark.stages(segmenter, picture, seconds)
        except ValueError as error:  # larger than a tile, where the model has no working size
            print(f"left out: {error}", flush=True)
    print(_stages_table(figures["pictures"]), flush=True)
    figures["peak_bytes"] = peaks = benchmark.peaks(source, segmenter.device)
    print("peak memory over the weights: " + ", ".join(map(_mebibytes, peaks.items())), flush=True)
    if data is not None:
        figures["quality"] = found = benchmark.quality(segmenter, data)
        iou = found["mean_iou"]
        print(
            f"{100 * found['same_pixels']:.2f} % of {found['pictures']} pictures' pixels as in "
            f"float32; mean IoU {100 * iou['segmenter']:.2f}, in float32 {100 * iou['plain']:.2f}"
        )
    return figures


def _forward_table(cases: dict[str, dict[str, Any]]) -> str:
    head = ("seconds", "plain fp32", "Segmenter", "floor", "/plain", "/floor")
    rows = [
        (
            name,
            *(_seconds(row[key]) for key in ("plain", "segmenter", "floor")),
            f"{row['over_plain']:.2f}",
            f"{row['over_floor']:.2f}",
        )
        for name, row in cases.items()
    ]
    return _columns([head, *rows])


def _stages_table(pictures: dict[str, dict[str, Any]]) -> str:
    from segmodels.evaluation.benchmark import STAGES

    head = ("from file", *STAGES, "call", "Pillow", "rest/forward", "rest/Pillow")
    rows = [
        (
            "x".join(map(str, row["size"])),
            *(_seconds(row[key]) for key in (*STAGES, "call", "pillow")),
            f"{row['rest_over_forward']:.2f}",
            f"{row['rest_over_pillow']:.2f}",
        )
        for row in pictures.values()
    ]
    return _columns([head, *rows])


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _seconds(timing: dict[str, float]) -> str:
    """Median and, behind it, the range of the middle half."""
    return f"{timing['median']:.4f} ±{timing['spread'] / 2:.4f}"


def _mebibytes(peak: tuple[str, int | None]) -> str:
    way, size = peak
    return f"{way} " + ("not told by this system" if size is None else f"{size / 2**20:.0f} MiB")


@contextmanager
def _pictures(given: list[Path] | None) -> Iterator[list[Path]]:
    """The pictures to take from file to class map: the given ones, or an example at 480 x 360 and,
    with a sensor's noise, at 12 megapixels."""
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
