"""`segmodels demo`: the page that compares the networks."""

import argparse
from importlib import import_module
from importlib.util import find_spec

from segmodels.cli._common import CommandError, Commands


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "demo",
        help="the page that compares the networks",
        description="Serve the page that compares the networks: those in the folder weights_card "
        "of a clone of the repository, or those that the environment variable SEGMODELS_MODELS "
        "names, Hub ids or folders, comma-separated.",
    )
    command.add_argument(
        "--host", help="0.0.0.0 for every interface; default: GRADIO_SERVER_NAME or 127.0.0.1"
    )
    command.add_argument(
        "--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free one from 7860 on"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if find_spec("gradio") is None:
        raise CommandError('the page needs Gradio: pip install "segmodels[demo]"')
    import_module("segmodels.demo.page").main(host=options.host, port=options.port)
    return 0
