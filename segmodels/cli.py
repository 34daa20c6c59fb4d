"""The command line: `segmodels ...`, the same as `python -m segmodels ...`.

What only one command needs (kornia, scipy, gradio) is imported when that command runs.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from .checkpoint import CheckpointError
from .data import SPLITS, DataError, open_data
from .files import write_text
from .hub import load_model
from .pictures import FORMATS, PictureError
from .segmentation import save_png
from .segmenter import PRECISIONS, Segmenter
from .version import __version__

APP = Path(__file__).resolve().parents[1] / "app.py"
Commands = argparse._SubParsersAction  # the type of `add_subparsers`, which has no public name


class CommandError(Exception):
    """What the user reads instead of a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 1 if something did not, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (CommandError, CheckpointError, DataError, PictureError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if error.name not in ("kornia", "scipy"):
            raise
        message = (
            f"this command needs {error.name}: pip install 'segmodels[train]', or in a clone of "
            "the repository `python3 run.py` in place of `segmodels`, which installs it"
        )
    except KeyboardInterrupt:
        message = "interrupted"
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror or error}"
    print(f"segmodels: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segmodels", description="FCN, U-Net and SegNet: segment, train, evaluate, compare."
    )
    parser.add_argument("--version", action="version", version=f"segmodels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    return parser


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", "cuda:1", ...')
    command.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS])


def _segmenter(options: argparse.Namespace) -> Segmenter:
    model = load_model(options.model)
    try:
        return Segmenter(model, device=options.device, precision=options.precision)
    except (AssertionError, RuntimeError) as error:  # torch's, for a device that is not there
        raise CommandError(f"--device {options.device} cannot be used: {error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


# ---- predict ----


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="pictures to class-id PNGs and overlays")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--out", type=Path, default=Path("segmented"), help="default: segmented/")
    command.add_argument("--opacity", type=float, default=0.5, help="of the overlays, 0 to 1")
    command.add_argument("--working-size", type=int, help="longer side seen by the network, pixels")
    _add_device(command)
    command.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    if not 0 <= options.opacity <= 1:
        raise CommandError(f"--opacity must be from 0 to 1, got {options.opacity}")
    if options.working_size is not None and options.working_size < 1:
        raise CommandError(f"--working-size must be at least 1, got {options.working_size}")
    jobs = _named_pictures(options.pictures)
    segmenter = _segmenter(options)
    options.out.mkdir(parents=True, exist_ok=True)
    failures = []
    for picture, name in tqdm(jobs, unit="picture", disable=len(jobs) == 1):
        try:
            result = segmenter(picture, working_size=options.working_size)
        except PictureError as error:
            failures.append(f"{picture}: {error}")
            continue
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


# ---- train ----


def _add_train(commands: Commands) -> None:
    command = commands.add_parser(
        "train",
        help="train a network; continues what is in --out",
        argument_default=argparse.SUPPRESS,
        description="Every option has a default that suits a road scene of some hundred pictures.",
    )
    command.add_argument("network", choices=["fcn", "unet", "segnet"])
    command.add_argument("--data", required=True, help="folder: see segmodels/data.py")
    command.add_argument("--out", required=True, type=Path, help="folder for the network")
    command.add_argument("--vgg16", help="ImageNet weights: a safetensors file or a Hub id")
    command.add_argument("--epochs", type=int)
    command.add_argument("--half-size-epochs", type=int, help="of these, at half the size")
    command.add_argument("--batch-size", type=int)
    command.add_argument("--crop", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    command.add_argument("--zoom", type=float, nargs=2, metavar=("FROM", "TO"))
    command.add_argument("--working-size", type=int, help="longer side of the pictures, pixels")
    command.add_argument("--encoder-lr", type=float)
    command.add_argument("--decoder-lr", type=float)
    command.add_argument("--weight-decay", type=float)
    command.add_argument("--warmup-steps", type=int)
    command.add_argument("--frozen", type=int, help="VGG16 convolutions that stay as they are")
    command.add_argument("--balance", type=float, help="exponent of the class weights; 0: none")
    command.add_argument("--stride", type=int, help="FCN's: 32, 16 or 8")
    command.add_argument("--head-channels", type=int, help="FCN's fc6 and fc7")
    command.add_argument("--base-channels", type=int, help="the plain U-Net's first level")
    command.add_argument("--variant", help='SegNet\'s: "vgg16" or "basic"')
    command.add_argument("--dropout", type=float)
    command.add_argument("--seed", type=int)
    command.add_argument("--device", default="auto")
    command.add_argument("--workers", type=int, default=0, help="processes that load pictures")
    command.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from .recipe import Recipe
    from .train import TrainingError, train

    given = {key: value for key, value in vars(options).items() if key != "run"}
    run = {key: given.pop(key) for key in ("out", "device", "workers")}
    try:
        train(Recipe(**given), **run)
    except (TrainingError, ValueError) as error:
        raise CommandError(str(error)) from error
    print(f"the trained network is in {options.out}")
    return 0


# ---- evaluate ----


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="figures of a network on a data set")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--data", required=True, type=Path, help="folder: see segmodels/data.py")
    command.add_argument("--split", default="test", help=f"{', '.join(SPLITS)}; default: test")
    command.add_argument("--json", type=Path, help="write the figures here too")
    command.add_argument(
        "--card", action="store_true", help="write them, and a model card, into the model's folder"
    )
    _add_device(command)
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from .card import EVALUATION_NAME, write_card
    from .evaluate import evaluate

    if options.card and not Path(options.model).is_dir():
        raise CommandError(f"--card writes into the model's folder; {options.model} is none")
    data = open_data(options.data, options.split)
    evaluation = evaluate(_segmenter(options), data)
    print(f"{options.model} on {options.split} of {options.data}, {len(data)} pictures\n")
    print(evaluation.table())
    figures = json.dumps({"split": options.split, **evaluation.to_json()}, indent=2) + "\n"
    if options.json:
        write_text(options.json, figures)
    if options.card:
        write_text(Path(options.model) / EVALUATION_NAME, figures)
        print(f"\nmodel card: {write_card(Path(options.model))}")
    return 0


# ---- demo ----


def _add_demo(commands: Commands) -> None:
    command = commands.add_parser("demo", help="the page that compares the networks")
    command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for every interface")
    command.add_argument("--port", type=int, default=7860)
    command.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    if not APP.is_file():
        raise CommandError(f"the demo is part of the repository: there is no {APP}")
    sys.path.insert(0, str(APP.parent))
    importlib.import_module(APP.stem).main(host=options.host, port=options.port)
    return 0
