"""`segmodels push`: upload a model folder to the Hub."""

import argparse
import tempfile
from pathlib import Path

from segmodels.cli._common import CommandError, Commands
from segmodels.hub.filenames import FILES, ONNX_NAME
from segmodels.hub.upload import copy_files, push_folder
from segmodels.inference.onnx_export import export_onnx
from segmodels.models.base import load_model


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "push",
        help="upload a model folder to the Hub",
        description="Upload config, weights, model card and images in one commit. Other files in "
        "the folder are not uploaded, and there is no commit if nothing has changed. Log in with "
        "`hf auth login` first.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.add_argument("repo_id", metavar="ORG/NAME")
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument(
        "--branch", help="branch to commit to, created if necessary; default: main"
    )
    command.add_argument(
        "--pull-request", action="store_true", help="open a pull request instead of committing"
    )
    command.add_argument("--message", default="Push model with segmodels", help="commit message")
    command.add_argument("--onnx", action="store_true", help=f"also upload {ONNX_NAME}")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise CommandError(f"there is no folder {options.folder}")
    model = load_model(options.folder)  # raises CheckpointError for an invalid network
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if options.onnx:
            folder = Path(scratch)
            copy_files(options.folder, folder, FILES)
            export_onnx(model, folder / ONNX_NAME)
        pushed = push_folder(
            folder,
            options.repo_id,
            private=options.private or None,
            branch=options.branch,
            create_pr=options.pull_request,
            commit_message=options.message,
        )
    print(pushed.url if pushed.changed else f"{pushed.repo_id} is already up to date: {pushed.url}")
    return 0
