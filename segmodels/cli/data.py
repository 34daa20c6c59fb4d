"""`segmodels data check`: report the contents and the errors of a dataset."""

import argparse
import sys
from pathlib import Path

from segmodels.cli._common import Commands
from segmodels.utils.formatting import count_of


def add(commands: Commands) -> None:
    command = commands.add_parser("data", help="check a dataset for errors")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="read every file of a dataset",
        description="Read every file of a dataset and report its contents, errors (exit status 1) "
        "and likely errors (warnings, exit status 0). If there are no errors, suggest a training "
        "command.",
    )
    check.add_argument("folder", type=Path, metavar="DIR", help="layouts: see docs/datasets.md")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.data.dataset import format_errors
    from segmodels.data.diagnosis import likely_errors
    from segmodels.data.layouts import notes_of
    from segmodels.data.validation import check_dataset, describe, shared_images
    from segmodels.training.proposal import propose

    reports, errors = check_dataset(options.folder)
    if reports:
        print(describe(options.folder, reports))
    if not errors:
        command, *tips = propose(options.folder, reports)
        print(
            "\n".join(
                ["suggested training command:", f"  {command}", *(f"  {tip}" for tip in tips), ""]
            )
        )
    notes = [note for report in reports.values() for note in notes_of(report.data.layout)]
    for note in [*dict.fromkeys(notes), *shared_images(reports)]:
        print(f"note: {note}")
    warnings = likely_errors(reports) if reports else []
    for warning in warnings:
        print(f"warning: {warning}")
    if errors:
        print(f"segmodels: {options.folder}: {format_errors(errors)}", file=sys.stderr)
        return 1
    print("no errors" + f", {count_of(len(warnings), 'warning')}" * bool(warnings))
    return 0
