"""The command line: `segmodels ...`, the same as `python -m segmodels ...`."""

import argparse
import sys
from collections.abc import Sequence

from segmodels.cli import (
    benchmark,
    card,
    data,
    demo,
    evaluate,
    export,
    predict,
    push,
    train,
)
from segmodels.cli._common import CommandError
from segmodels.data.dataset import DataError
from segmodels.data.image_io import PictureError
from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.upload import PushError
from segmodels.inference.onnx_export import ExportError
from segmodels.version import __version__

COMMANDS = (predict, data, train, evaluate, card, benchmark, export, push, demo)
# What the user reads instead of a traceback.
MISTAKES = (CommandError, CheckpointError, DataError, ExportError, PictureError, PushError)
# The extra of pyproject.toml that brings what some commands need.
EXTRAS = {
    **dict.fromkeys(("accelerate", "kornia", "scipy"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 1 if something did not, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except MISTAKES as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        message = (
            f"this command needs {error.name}: pip install 'segmodels[{EXTRAS[error.name]}]', or "
            "in a clone of the repository `python3 run.py` in place of `segmodels`, which installs "
            "it"
        )
    except KeyboardInterrupt:
        message = "interrupted"
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""  # not every one is of a file
        message = f"{file}{error.strerror or error}"
    print(f"segmodels: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segmodels", description="FCN, U-Net and SegNet: segment, train, evaluate, compare."
    )
    parser.add_argument("--version", action="version", version=f"segmodels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
