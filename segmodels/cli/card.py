"""`segmodels card`: a model folder's card, from the figures that lie in it."""

import argparse
from pathlib import Path

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.image_io import PictureError


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "card",
        help="write a model's card from its evaluation.json and training.json",
        description="The figures are those of the last `segmodels evaluate --card`.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.add_argument(
        "--pictures", nargs="+", type=Path, default=[], help="show what it makes of them"
    )
    command.add_argument("--credit", default="", help="a line on the pictures' origin")
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.evaluation.model_card import PICTURE_NAME, write_card
    from segmodels.evaluation.showcase import showcase, write_showcase

    if not options.folder.is_dir():
        raise CommandError(f"there is no folder {options.folder}")
    if options.pictures:
        options.model = options.folder
        try:
            image = showcase(open_segmenter(options), options.pictures, options.credit)
        except PictureError as error:
            raise CommandError(f"--pictures: {error}") from error
        write_showcase(image, options.folder / PICTURE_NAME)
    print(f"model card: {write_card(options.folder)}")
    return 0
