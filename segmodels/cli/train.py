"""`segmodels train`: a network from a data set."""

import argparse
import os
from pathlib import Path

from segmodels.cli._common import CommandError, Commands

RUN_OPTIONS = ("out", "device", "workers", "tracker", "validate_every", "checkpoint_seconds")


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "train",
        help="train a network; continues what is in --out",
        argument_default=argparse.SUPPRESS,
        description="Every option has a default that suits a road scene of some hundred pictures.",
    )
    command.add_argument("network", choices=["fcn", "unet", "segnet"])
    command.add_argument("--data", required=True, help="folder: see segmodels/data.py")
    command.add_argument("--out", required=True, type=Path, help="folder for the network")
    command.add_argument("--vgg16", help="ImageNet weights: a safetensors file or a Hub id")
    command.add_argument("--start", help="go on from a trained network: a folder or a Hub id")
    command.add_argument("--epochs", type=int)
    command.add_argument("--half-size-epochs", type=int, help="of these, at half the size")
    command.add_argument("--batch-size", type=int)
    command.add_argument("--crop", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    command.add_argument("--zoom", type=float, nargs=2, metavar=("FROM", "TO"))
    command.add_argument("--working-size", type=int, help="longer side of the pictures, pixels")
    command.add_argument("--encoder-lr", type=float)
    command.add_argument("--decoder-lr", type=float)
    command.add_argument(
        "--skip-rates", type=float, nargs=2, metavar=("POOL4", "POOL3"), help="of FCN's skip scores"
    )
    command.add_argument("--schedule", help='"poly" or "onecycle"')
    command.add_argument("--ema", type=float, help="decay of a moving average, 0.999 for example")
    command.add_argument(
        "--precision", help="bf16, fp16 or fp32; default: accelerate's, or bf16 where it is fast"
    )
    command.add_argument("--weight-decay", type=float)
    command.add_argument("--warmup-steps", type=int)
    command.add_argument("--frozen", type=int, help="VGG16 convolutions that stay as they are")
    command.add_argument("--balance", type=float, help="exponent of the class weights; 0: none")
    command.add_argument("--border-weight", type=float, help="U-Net's w0, 10 in its paper; 0: none")
    command.add_argument("--border-sigma", type=float, help="U-Net's sigma, pixels")
    command.add_argument(
        "--lovasz", type=float, help="weight of the Lovász-softmax loss, 1 for example; 0: none"
    )
    command.add_argument(
        "--elastic", type=float, help="U-Net's deformation, pixels, 10 in its paper"
    )
    command.add_argument("--color-strength", type=float, help="of changes of colour, 0 to 2.5")
    command.add_argument("--degrade", type=float, help="probability of blur, of noise, of a shadow")
    command.add_argument("--stride", type=int, help="FCN's: 32, 16 or 8")
    command.add_argument("--head-channels", type=int, help="FCN's fc6 and fc7")
    command.add_argument("--base-channels", type=int, help="the plain U-Net's first level")
    command.add_argument("--variant", help='SegNet\'s: "vgg16" or "basic"')
    command.add_argument("--dropout", type=float)
    command.add_argument("--seed", type=int)
    running = command.add_argument_group("how it runs; none of these changes the result")
    running.add_argument("--device", default="auto")
    running.add_argument("--workers", type=int, default=0, help="processes that load pictures")
    running.add_argument("--tracker", help="accelerate's: tensorboard, wandb, mlflow, ...")
    running.add_argument("--validate-every", type=int, help="epochs; default: 5")
    running.add_argument("--checkpoint-seconds", type=float, help="default: 120")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from segmodels.inference.optimize import bf16_pays, pick_device
    from segmodels.training.config import TrainingConfig
    from segmodels.training.runner import TrainingError, train
    from segmodels.utils.distributed import ProcessError, is_main_process

    given = {key: value for key, value in vars(options).items() if key != "run"}
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # `accelerate launch` sets it
    if launched in ("bf16", "fp16"):
        given.setdefault("precision", launched)
    elif options.device in ("auto", "cpu") and pick_device(options.device).type == "cpu":
        given.setdefault("precision", "bf16" if bf16_pays() else "fp32")
    run = {key: given.pop(key) for key in RUN_OPTIONS if key in given}
    try:
        train(TrainingConfig(**given), **run)
    except (ProcessError, TrainingError, ValueError) as error:
        raise CommandError(str(error)) from error
    if is_main_process():
        print(f"the trained network is in {options.out}")
    return 0
