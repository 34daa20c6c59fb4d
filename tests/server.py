"""A demo of tiny networks in a process of its own, for tests and for `benchmarks/soak.py`."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from segmodels import FCN, SegNet, UNet
from segmodels.hub import SegmentationModel

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["road", "sky", "car", "tree"]


def write_networks(folder: Path) -> str:
    """Three small networks for road scenes whose answers vary; what SEGMODELS_MODELS is set to."""
    torch.manual_seed(0)
    models: dict[str, SegmentationModel] = {
        "fcn-camvid": FCN(class_names=NAMES, head_channels=4, working_size=32),
        "unet-camvid": UNet(class_names=NAMES, base_channels=2, working_size=64),
        "segnet-camvid": SegNet(class_names=NAMES, variant="basic", working_size=32),
    }
    for name, model in models.items():
        for layer_name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d) and layer_name.startswith("score"):
                nn.init.normal_(layer.weight, std=0.1)
        model.save_pretrained(folder / name)
    return ",".join(str(folder / name) for name in models)


@contextmanager
def running(
    models: str, folder: Path, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of `python app.py`, which keeps its files in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    environment = {
        **os.environ,
        "SEGMODELS_MODELS": models,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        **variables,
    }
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, ROOT / "app.py"], stdout=output, stderr=output, env=environment
        )
    try:
        deadline = time.monotonic() + 120
        while "Running on" not in log.read_text() and process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(log.read_text())
            time.sleep(0.1)
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
