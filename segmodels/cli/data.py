"""`segmodels data check`: what a data set holds, and all that is wrong with it."""

import argparse
import sys
from pathlib import Path

from segmodels.cli._common import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("data", help="what a data set holds, and what is wrong with it")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="read every file; exit status 1 if there is a mistake", description=__doc__
    )
    check.add_argument("folder", type=Path, metavar="DIR", help="see segmodels/data.py")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.data.dataset import list_mistakes
    from segmodels.data.report import describe, same_pictures, survey_all

    surveys, mistakes = survey_all(options.folder)
    if surveys:
        print(describe(options.folder, surveys))
    for note in same_pictures(surveys):
        print(f"note: {note}")
    if mistakes:
        print(f"segmodels: {options.folder}: {list_mistakes(mistakes)}", file=sys.stderr)
        return 1
    print("no mistakes")
    return 0
