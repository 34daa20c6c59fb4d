"""`segmodels card`: a model folder's card, from its record."""

import argparse
from pathlib import Path

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.image_io import PictureError

# Entries of card.json, each an option, with its help.
ENTRIES = {
    "dataset": "a dataset whose name, terms and published results segmodels knows",
    "dataset_name": "the training data's name",
    "license": 'of the weights, as the Hub spells it: "cc-by-4.0", "other", ...',
    "license_name": 'its name, where --license is "other"',
    "license_link": "where its terms are stated",
    "terms": "of the weights and the data, in Markdown",
    "limits": "what the network is not for, in Markdown",
    "selection": "on which images choices were made; how often the measured split was looked at",
    "examples": "what the images of --images are, in Markdown",
}


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "card",
        help="write a model's card from its evaluation.json and training.json",
        description="The metrics are those of the last `segmodels evaluate --card`. What is given "
        "here is kept in card.json; what is not known is left out of the card.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER")
    for entry, text in ENTRIES.items():
        command.add_argument(f"--{entry.replace('_', '-')}", metavar="TEXT", help=text)
    command.add_argument(
        *("--images", "--pictures"),
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="show the network's results on them",
    )
    command.add_argument("--credit", default="", help="a line on the images' origin")
    command.add_argument(
        "--overwrite", action="store_true", help="replace a README.md that segmodels did not write"
    )
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.evaluation.dataset_info import DATASETS
    from segmodels.evaluation.model_card import (
        EXAMPLES_NAME,
        check_card_can_be_written,
        write_card,
        write_card_info,
    )
    from segmodels.evaluation.qualitative import examples_sheet, write_examples

    if not options.folder.is_dir():
        raise CommandError(f"there is no folder {options.folder}")
    if options.dataset not in (None, *DATASETS):
        raise CommandError(
            f"--dataset must be one of {', '.join(DATASETS)}, got {options.dataset!r}; describe "
            "any other by --dataset-name, --license and --terms"
        )
    check_card_can_be_written(options.folder, overwrite=options.overwrite, needs_evaluation=True)
    entries = {name: getattr(options, name) for name in ENTRIES if getattr(options, name)}
    if entries:
        write_card_info(options.folder, entries)
    if options.images:
        options.model = options.folder
        try:
            image = examples_sheet(open_segmenter(options), options.images, options.credit)
        except PictureError as error:
            raise CommandError(f"--images: {error}") from error
        write_examples(image, options.folder / EXAMPLES_NAME)
    print(f"model card: {write_card(options.folder, overwrite=options.overwrite)}")
    return 0
