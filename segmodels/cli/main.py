"""The command line: `segmodels ...` or `python -m segmodels ...`."""

import argparse
import io
import os
import select
import sys
from collections.abc import Sequence

from segmodels.cli import benchmark, card, data, demo, evaluate, export, predict, push, train
from segmodels.cli._common import CommandError
from segmodels.data.dataset import DataError
from segmodels.data.image_io import PictureError
from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.upload import PushError
from segmodels.inference.onnx_export import ExportError
from segmodels.version import __version__

COMMANDS = (predict, data, train, evaluate, card, benchmark, export, push, demo)
# Reported in one line instead of a traceback.
EXPECTED_ERRORS = (
    CommandError,
    CheckpointError,
    DataError,
    ExportError,
    PictureError,
    PushError,
)
# {top-level module: extra of pyproject.toml that installs it}
EXTRAS = {
    **dict.fromkeys(("accelerate", "kornia", "matplotlib", "scipy"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    "gradio": "demo",
}
FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Command-line arguments; `sys.argv[1:]` by default.

    Returns:
        The exit status: 0 on success, 1 on failure, 130 after Ctrl+C. Invalid arguments raise
        SystemExit(2), as in argparse.
    """
    for stream in (sys.stdout, sys.stderr):
        _escape_unencodable(stream)
    try:
        return _run(arguments)
    except BrokenPipeError as error:  # the reader of the output has closed the pipe: `| head`
        if not _reader_closed_pipe():
            return _report(f"{error.strerror}: a process or connection ended unexpectedly")
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _report("interrupted")
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run the command; expected errors become one line on stderr."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except EXPECTED_ERRORS as error:
        return _report(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _report(
            f'this command needs {error.name}: pip install "segmodels[{extra}]" (in a clone of the '
            "repository, use `python3 run.py` instead of `segmodels` to install it)"
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""  # not every OSError concerns a file
        return _report(f"{file}{error.strerror or error}")
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a closed pipe is detected here and not after `main`


def _report(message: str) -> int:
    print(f"segmodels: {message}", file=sys.stderr)
    return FAILED


def _escape_unencodable(stream: object) -> None:
    """Write characters that the stream's encoding (cp1252, ascii) lacks as escape sequences."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _reader_closed_pipe() -> bool:
    """Whether the reader of the pipe that stdout writes to has closed it."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always reported
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segmodels",
        description="Semantic segmentation with FCN, U-Net and SegNet: segment images, train, "
        "evaluate and compare networks.",
    )
    parser.add_argument("--version", action="version", version=f"segmodels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
