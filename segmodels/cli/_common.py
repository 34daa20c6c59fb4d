"""Shared code of the commands.

Each command is a module: `add` declares its arguments, and `run` executes it and returns the exit
status. Dependencies of individual commands (kornia, scipy, gradio) are imported when they run.
"""

import argparse

from segmodels.inference.optimize import PRECISIONS
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import load_model

Commands = argparse._SubParsersAction  # the type of `add_subparsers`, which has no public name


class CommandError(Exception):
    """An error that is reported to the user without a traceback."""


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device and --precision, which `open_segmenter` uses."""
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, ...; default: auto"
    )
    command.add_argument(
        "--precision", default="auto", choices=["auto", *PRECISIONS], help="default: auto"
    )


def open_segmenter(options: argparse.Namespace, source: str | None = None) -> Segmenter:
    """Load a segmenter according to --device and --precision.

    Args:
        options: The parsed arguments.
        source: Hub id or folder of the network; --model by default.

    Raises:
        CommandError: If the device is not available or does not support the precision.
        CheckpointError: If the network cannot be loaded.
    """
    model = load_model(source or options.model)
    try:
        return Segmenter(model, device=options.device, precision=options.precision)
    except (AssertionError, RuntimeError) as error:  # raised by torch for unavailable devices
        raise CommandError(f"--device {options.device} cannot be used: {error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
