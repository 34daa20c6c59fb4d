"""`segmodels evaluate`: measure the metrics of a network on a dataset."""

import argparse
import json
import tempfile
from pathlib import Path

from segmodels.cli._common import CommandError, Commands, add_device, open_segmenter
from segmodels.data.dataset import (
    SPLITS,
    HoldOut,
    SegmentationData,
    has_split,
    hold_out_of,
    open_split,
)
from segmodels.hub.filenames import HELD_OUT
from segmodels.inference.results import save_png
from segmodels.training.record import fetch_record
from segmodels.utils.files import write_text
from segmodels.utils.formatting import count_of


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure the metrics of a network on a dataset",
        description="Metrics per class: IoU, Dice (F1), precision, accuracy (recall) and boundary "
        "F1; overall: mean IoU, mean Dice, pixel accuracy, mean accuracy, frequency-weighted IoU "
        "and boundary F1. Invalid images and labels are reported and excluded; the exit status is "
        "then 1.",
    )
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--data", required=True, type=Path, help="folder of the dataset")
    command.add_argument(
        "--split",
        default="test",
        help=f"{', '.join(SPLITS)}, or all (of a dataset without lists); default: test",
    )
    command.add_argument(
        "--val-fraction",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="with --split val or train: --val-fraction of the training; default: the held-out "
        "images listed in the model's training.json",
    )
    command.add_argument(
        "--folds", type=int, metavar="K", help="with --split val or train: --folds of the training"
    )
    command.add_argument("--fold", type=int, metavar="k", help="the fold that was held out")
    command.add_argument("--seed", type=int, default=0, help="seed of the training; default: 0")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to FILE")
    command.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the metrics of each image to FILE"
    )
    command.add_argument(
        "--by-source",
        action="store_true",
        help="also report metrics per source (file name up to the first underscore)",
    )
    command.add_argument(
        "--objects",
        action="append",
        default=[],
        metavar="CLASS",
        help="also measure precision, recall and AP at IoU 0.5 of the objects (connected "
        "components) of CLASS; may be repeated",
    )
    command.add_argument(
        "--membrane",
        metavar="CLASS",
        help="also measure V-Rand, V-Info, pixel and warping error of the cells that CLASS "
        "separates, of the class map and at the best threshold of its probability",
    )
    command.add_argument(
        "--grid",
        type=Path,
        metavar="FILE.png",
        help="draw the images with the highest and the lowest mean IoU",
    )
    command.add_argument(
        *("--grid-images", "--grid-pictures"),
        type=int,
        default=4,
        metavar="N",
        help="with --grid: number of best and of worst images; default: 4",
    )
    command.add_argument(
        "--card",
        action="store_true",
        help="write evaluation.json and a model card to the model's folder",
    )
    command.add_argument(
        "--out-of-domain",
        metavar="NAME",
        help="with --card: keep the card's main metrics and add these as section NAME, for a "
        "dataset from a different source than the training data",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="with --card: replace a README.md that segmodels did not write",
    )
    add_device(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.evaluation.evaluator import check_classes, evaluate
    from segmodels.evaluation.model_card import record_evaluation, write_card
    from segmodels.evaluation.qualitative import image_grid
    from segmodels.utils.distributed import is_main_process, join_processes

    _check_options(options)
    options.device = join_processes(options.device)
    data = _open_data(options)
    segmenter = open_segmenter(options)
    requested = [*options.objects, *([options.membrane] if options.membrane else [])]
    check_classes(segmenter.model.class_names, data, requested)
    evaluation = evaluate(
        segmenter, data, objects=options.objects, membrane=options.membrane, skip_errors=True
    )
    if not is_main_process():
        return 0
    evaluated = f"{len(evaluation.images)} of {len(data)} images"
    print(f"{options.model} on {options.split} of {options.data}, {evaluated}\n")
    print(evaluation.table())
    if options.by_source:
        print(f"\nby source, over the classes present\n\n{evaluation.source_table()}")
    report = {
        "split": options.split,
        "data": options.data.resolve().name,
        "precision": segmenter.precision,
        **evaluation.to_json(by_source=options.by_source),
    }
    if options.json:
        write_text(options.json, json.dumps(report, indent=2) + "\n")
    if options.csv:
        write_text(options.csv, evaluation.csv())
    if options.grid:
        save_png(image_grid(segmenter, data, evaluation, options.grid_images), options.grid)
        print(f"\nbest and worst images: {options.grid}")
    if options.card:
        record_evaluation(Path(options.model), report, out_of_domain=options.out_of_domain)
        card = write_card(Path(options.model), overwrite=options.overwrite)
        print(f"\nmodel card: {card}")
    return report_errors([(error.name, error.error) for error in evaluation.errors])


def _open_data(options: argparse.Namespace) -> SegmentationData:
    """Open the split; without hold-out options, with the same held-out images as in training."""
    hold_out = hold_out_of(options.val_fraction, options.folds, options.fold, options.seed)
    if hold_out is None and options.split in ("train", "val"):
        record = fetch_record(options.model) or {}
        is_own = record.get("data") == options.data.resolve().name
        if HELD_OUT in record and (is_own or not has_split(options.data, options.split)):
            hold_out = HoldOut(names=frozenset(record[HELD_OUT]))
    return open_split(options.data, options.split, hold_out)


def report_errors(errors: list[tuple[str, str]]) -> int:
    """Print the images that could not be evaluated; returns the exit status."""
    if errors:
        print(f"\n{count_of(len(errors), 'image')} could not be evaluated:")
        for name, error in errors:
            print(f"  {name}: {error}")
    return 1 if errors else 0


def _check_options(options: argparse.Namespace) -> None:
    """Raise CommandError for options that would otherwise fail only after the evaluation."""
    from segmodels.evaluation.model_card import check_card_can_be_written
    from segmodels.hub.filenames import EVALUATION_NAME

    if options.grid_images < 1:
        raise CommandError(f"--grid-images must be at least 1, got {options.grid_images}")
    if options.out_of_domain and not options.card:
        raise CommandError("--out-of-domain adds a section to the model card: add --card")
    outputs = [("--json", options.json), ("--csv", options.csv), ("--grid", options.grid)]
    paths = [(option, path) for option, path in outputs if path is not None]
    if len({path.resolve() for _, path in paths}) < len(paths):
        raise CommandError(f"{', '.join(option for option, _ in paths)} must be different files")
    for option, path in paths:
        _check_writable(option, path)
    if options.card:
        folder = Path(options.model)
        if not folder.is_dir():
            raise CommandError(f"--card writes into the model's folder; {folder} is not a folder")
        _check_writable("--card", folder / EVALUATION_NAME)
        check_card_can_be_written(
            folder, overwrite=options.overwrite, needs_evaluation=bool(options.out_of_domain)
        )


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{option} {path} is a folder; expected a file name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CommandError(f"{option} {path} cannot be written: {error.strerror}") from error
