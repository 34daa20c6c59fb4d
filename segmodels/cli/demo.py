"""`segmodels demo`: the page that compares the networks."""

import argparse
import importlib
import sys
from pathlib import Path

from segmodels.cli._common import CommandError, Commands

APP = Path(__file__).resolve().parents[2] / "app.py"


def add(commands: Commands) -> None:
    command = commands.add_parser("demo", help="the page that compares the networks")
    command.add_argument(
        "--host", help="0.0.0.0 for every interface; default: GRADIO_SERVER_NAME or 127.0.0.1"
    )
    command.add_argument(
        "--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free one from 7860 on"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not APP.is_file():
        raise CommandError(f"the demo is part of the repository: there is no {APP}")
    sys.path.insert(0, str(APP.parent))
    importlib.import_module(APP.stem).main(host=options.host, port=options.port)
    return 0
