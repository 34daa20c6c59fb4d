"""The commands of `segmodels`, one a file: `add` declares its arguments, `run` runs it.

What only one command needs (kornia, scipy, gradio) is imported when that command runs.
"""

import argparse

from segmodels.inference.optimize import PRECISIONS
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import load_model

Commands = argparse._SubParsersAction  # the type of `add_subparsers`, which has no public name


class CommandError(Exception):
    """What the user reads instead of a traceback."""


def add_device(command: argparse.ArgumentParser) -> None:
    """--device and --precision, for `open_segmenter`."""
    command.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", "cuda:1", ...')
    command.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS])


def open_segmenter(options: argparse.Namespace, source: str | None = None) -> Segmenter:
    """The network of `source`, or else of --model, on --device. CommandError if that device cannot
    be used."""
    model = load_model(source or options.model)
    try:
        return Segmenter(model, device=options.device, precision=options.precision)
    except (AssertionError, RuntimeError) as error:  # torch's, for a device that is not there
        raise CommandError(f"--device {options.device} cannot be used: {error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
