"""`segmodels card`: write the model card of a model folder."""

import argparse
from pathlib import Path

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.image_io import PictureError

# Entries of card.json, which are also options, with their help texts.
ENTRIES = {
    "dataset": "a dataset whose name, terms and published results are built into segmodels",
    "dataset_name": "name of the training data",
    "license": 'license of the weights, as a Hub identifier: "cc-by-4.0", "other", ...',
    "license_name": 'name of the license if --license is "other"',
    "license_link": "URL of the license terms",
    "terms": "terms of the weights and the data, in Markdown",
    "limits": "uses that the network is not intended for, in Markdown",
    "selection": "how settings were chosen and how often the reported split was evaluated, in "
    "Markdown",
    "examples": "description of --images, in Markdown",
}


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "card",
        help="write the model card of a model folder",
        description="Write README.md from evaluation.json (see `segmodels evaluate --card`), "
        "training.json and the options given here, which are stored in card.json. Missing "
        "information is omitted.",
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
        help="show the predictions for these images",
    )
    command.add_argument("--credit", default="", help="credit line for the images")
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
            f"--dataset must be one of {', '.join(DATASETS)}, got {options.dataset!r}; for "
            "other datasets, use --dataset-name, --license and --terms"
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
