"""Shared code of the commands. Each is a module: `add` declares its arguments, `run` executes it.

Dependencies of single commands (kornia, scipy, gradio) are imported when the command runs.
"""

import argparse

from segmodels.inference.optimize import PRECISIONS
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import load_model

Commands = argparse._SubParsersAction  # the type of `add_subparsers`, which has no public name


class CommandError(Exception):
    """An error that is reported to the user without a traceback."""


def add_device(command: argparse.ArgumentParser) -> None:
    """--device and --precision, for `open_segmenter`."""
    command.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", "cuda:1", ...')
    command.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS])


def open_segmenter(options: argparse.Namespace, source: str | None = None) -> Segmenter:
    """A segmenter for `source`, or else --model, on --device. Raises CommandError if the device is
    not available."""
    model = load_model(source or options.model)
    try:
        return Segmenter(model, device=options.device, precision=options.precision)
    except (AssertionError, RuntimeError) as error:  # raised by torch for unavailable devices
        raise CommandError(f"--device {options.device} cannot be used: {error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
