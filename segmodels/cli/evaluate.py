"""`segmodels evaluate`: figures of a network on a data set."""

import argparse
import json
from pathlib import Path

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.dataset import SPLITS, open_data
from segmodels.inference.results import save_png
from segmodels.utils.files import write_text


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="figures of a network on a data set")
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--data", required=True, type=Path, help="folder: see segmodels/data.py")
    command.add_argument("--split", default="test", help=f"{', '.join(SPLITS)}; default: test")
    command.add_argument("--json", type=Path, help="write the figures here too")
    command.add_argument(
        "--grid", type=Path, metavar="FILE.png", help="draw the best and worst pictures, with truth"
    )
    command.add_argument("--grid-pictures", type=int, default=4, help="of each kind; default: 4")
    command.add_argument(
        "--card", action="store_true", help="write them, and a model card, into the model's folder"
    )
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.evaluation.evaluator import evaluate
    from segmodels.evaluation.model_card import write_card
    from segmodels.evaluation.qualitative import picture_grid
    from segmodels.hub.filenames import EVALUATION_NAME
    from segmodels.utils.distributed import is_main_process, join_processes

    if options.card and not Path(options.model).is_dir():
        raise CommandError(f"--card writes into the model's folder; {options.model} is none")
    if options.grid_pictures < 1:
        raise CommandError(f"--grid-pictures must be at least 1, got {options.grid_pictures}")
    options.device = join_processes(options.device)
    data = open_data(options.data, options.split)
    segmenter = open_segmenter(options)
    evaluation = evaluate(segmenter, data)
    if not is_main_process():
        return 0
    print(f"{options.model} on {options.split} of {options.data}, {len(data)} pictures\n")
    print(evaluation.table())
    figures = json.dumps({"split": options.split, **evaluation.to_json()}, indent=2) + "\n"
    if options.json:
        write_text(options.json, figures)
    if options.grid:
        save_png(picture_grid(segmenter, data, evaluation, options.grid_pictures), options.grid)
        print(f"\nbest and worst pictures: {options.grid}")
    if options.card:
        write_text(Path(options.model) / EVALUATION_NAME, figures)
        print(f"\nmodel card: {write_card(Path(options.model))}")
    return 0
