"""`segmodels train`: train a network. The options are the fields of `TrainingConfig`."""

import argparse
import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any

from segmodels.cli._common import CommandError, Commands
from segmodels.models.registry import architectures
from segmodels.training.config import TrainingConfig
from segmodels.training.presets import PRESETS, config_from_preset

RUN_OPTIONS = (
    *("out", "device", "workers", "tracker", "validate_every", "checkpoint_seconds", "keep"),
)


def add(commands: Commands) -> None:
    """Add the command and its options."""
    presets = "\n".join(f"  {name}: {preset.about}" for name, preset in PRESETS.items())
    command = commands.add_parser(
        "train",
        help="train a network, or resume or extend a training run",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a network on a dataset. Repeat the command to resume an interrupted "
        "run;\nrepeat it with more --epochs or --steps to extend a finished one.",
        epilog=f"presets (any of their options can be overridden):\n{presets}",
    )
    command.add_argument(
        "network",
        nargs="?",
        default=None,
        choices=architectures(),
        help="optional if --preset specifies it",
    )
    command.add_argument("--out", required=True, type=Path, help="output folder")
    command.add_argument(
        "--preset", choices=PRESETS, help="a named set of options, see below (default: none)"
    )
    hints = typing.get_type_hints(TrainingConfig)
    groups: dict[str, Any] = {}
    for option in dataclasses.fields(TrainingConfig):
        if option.name != "network":
            title = option.metadata["group"]
            if title not in groups:
                groups[title] = command.add_argument_group(title)
            _add_option(groups[title], option, hints[option.name])
    running = command.add_argument_group("execution (does not affect the result)")
    running.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    running.add_argument(
        "--workers", type=int, default=0, help="number of data loading processes (default: 0)"
    )
    running.add_argument(
        "--tracker",
        help="experiment tracker of accelerate: tensorboard, wandb, mlflow, ... (default: none)",
    )
    running.add_argument(
        "--validate-every", type=int, help="epochs between validations (default: 5)"
    )
    running.add_argument(
        "--keep",
        choices=("last", "best"),
        help="best: also save the network with the best validation mean IoU in OUT/best (default: "
        "last)",
    )
    running.add_argument(
        "--checkpoint-seconds", type=float, help="seconds between checkpoints (default: 120)"
    )
    command.set_defaults(run=run)


def _add_option(group: Any, option: dataclasses.Field, hint: Any) -> None:
    """Add a field of `TrainingConfig` as an option with its type, help and default."""
    texts = option.metadata
    keywords: dict[str, Any] = {"metavar": texts["metavar"], "choices": texts["choices"]}
    required = option.default is dataclasses.MISSING
    kinds = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
    kind = kinds[0] if isinstance(hint, types.UnionType) else hint
    if kind is bool:
        keywords = {"action": argparse.BooleanOptionalAction}
    elif typing.get_origin(kind) is tuple:
        element_types = typing.get_args(kind)
        keywords |= {"type": element_types[0], "nargs": "+" if ... in element_types else 2}
    else:
        keywords["type"] = kind
    default = "" if required else f" (default: {texts['unset'] or _format_default(option.default)})"
    help = f"{texts['help']}{default}".replace("%", "%%")
    group.add_argument(
        "--" + option.name.replace("_", "-"), help=help, required=required, **keywords
    )


def _format_default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)


def run(options: argparse.Namespace) -> int:
    """Train, and print the final metrics."""
    from segmodels.inference.optimize import bf16_is_fast, pick_device
    from segmodels.training.runner import TrainingError, train
    from segmodels.utils.distributed import ProcessError, is_main_process

    given = {key: value for key, value in vars(options).items() if key != "run"}
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # `accelerate launch` sets it
    if launched in ("bf16", "fp16"):
        given.setdefault("precision", launched)
    elif options.device in ("auto", "cpu") and pick_device(options.device).type == "cpu":
        given.setdefault("precision", "bf16" if bf16_is_fast() else "fp32")
    run_options = {key: given.pop(key) for key in RUN_OPTIONS if key in given}
    preset = given.pop("preset", None)
    try:
        if preset is not None:
            config = config_from_preset(preset, **given)
        elif given["network"] is None:
            raise ValueError(
                f"no network given: specify one of {', '.join(architectures())}, or a --preset"
            )
        else:
            config = TrainingConfig(**given)
        evaluation = train(config, **run_options)
    except (ProcessError, TrainingError, ValueError) as error:
        raise CommandError(str(error)) from error
    if is_main_process():
        if evaluation is not None:
            print(f"{evaluation.table()}\n")
        print(f"the trained network is in {options.out}")
    return 0
