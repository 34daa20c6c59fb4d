"""`segmodels predict`: pictures to class-id PNGs and overlays."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..pictures import FORMATS, PictureError
from ..segmentation import save_png
from . import CommandError, Commands, add_device, open_segmenter


def add(commands: Commands) -> None:
    command = commands.add_parser("predict", help="pictures to class-id PNGs and overlays")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--out", type=Path, default=Path("segmented"), help="default: segmented/")
    command.add_argument("--opacity", type=float, default=0.5, help="of the overlays, 0 to 1")
    command.add_argument("--working-size", type=int, help="longer side seen by the network, pixels")
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not 0 <= options.opacity <= 1:
        raise CommandError(f"--opacity must be from 0 to 1, got {options.opacity}")
    if options.working_size is not None and options.working_size < 1:
        raise CommandError(f"--working-size must be at least 1, got {options.working_size}")
    jobs = _named_pictures(options.pictures)
    segmenter = open_segmenter(options)
    options.out.mkdir(parents=True, exist_ok=True)
    failures = []
    for picture, name in tqdm(jobs, unit="picture", disable=len(jobs) == 1):
        try:
            result = segmenter(picture, working_size=options.working_size)
        except PictureError as error:
            failures.append(f"{picture}: {error}")
            continue
        if result.note:
            tqdm.write(f"{picture}: {result.note}", file=sys.stderr)
        result.save(options.out / f"{name}.png")
        save_png(result.overlay(options.opacity), options.out / f"{name}_overlay.png")
    print(f"{len(jobs) - len(failures)} of {len(jobs)} pictures segmented into {options.out}")
    for failure in failures:
        print(f"segmodels: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _named_pictures(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Every picture, folders opened, with a name for its results that no other has: its stem, or
    else its file name, or a number behind it."""
    jobs: dict[str, Path] = {}
    for number, path in enumerate(_files(paths)):
        names = (path.stem, path.name.replace(".", "_"), f"{path.stem}_{number}")
        jobs[next(name for name in names if name not in jobs)] = path
    return [(path, name) for name, path in jobs.items()]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    suffixes = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
        if not inside:
            raise CommandError(f"{path} holds no picture files")
        yield from inside
