"""`segmodels export`: write a network as an ONNX file."""

import argparse
from pathlib import Path

from segmodels.cli._common import CommandError, Commands
from segmodels.inference.onnx_export import export_onnx
from segmodels.models.base import load_model


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "export",
        help="write a network as an ONNX file",
        description="Write a network as an ONNX file for images of any size, and verify it with "
        "onnxruntime. Input pixel_values: float32 (batch, channels, height, width), (image / 255 - "
        "image_mean) / image_std; output logits: float32 (batch, classes, height, width).",
    )
    command.add_argument("--model", required=True, help="Hub id or folder")
    command.add_argument("--out", required=True, type=Path, metavar="FILE.onnx")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.out.suffix != ".onnx":
        raise CommandError(f"--out must end in .onnx, got {options.out}")
    difference = export_onnx(load_model(options.model), options.out)
    print(f"{options.out}: logits within {difference:.1g} of PyTorch's, relative to the largest")
    return 0
