"""`segmodels demo`: serve the demo."""

import argparse
from importlib import import_module
from importlib.util import find_spec

from segmodels.cli._common import CommandError, Commands


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "demo",
        help="serve the demo",
        description="Serve a web page that compares networks on an image: those in weights_card/ "
        "of a clone, or the comma-separated Hub ids or folders in the environment variable "
        "SEGMODELS_MODELS.",
    )
    command.add_argument(
        "--host",
        help="address to listen on, 0.0.0.0 for all interfaces; default: GRADIO_SERVER_NAME or "
        "127.0.0.1",
    )
    command.add_argument(
        "--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free port from 7860"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if find_spec("gradio") is None:
        raise CommandError('the demo needs Gradio: pip install "segmodels[demo]"')
    import_module("segmodels.demo.page").main(host=options.host, port=options.port)
    return 0
