"""A demo of tiny networks in a process of its own, for tests and for tests/load."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from segmodels import FCN, SegNet, UNet
from segmodels.models.base import SegmentationModel
from tests.support.serving import PATIENCE, ROOT, free_port

NAMES = ["road", "sky", "car", "tree"]
# Preludes of `running`: files in the demo's folder say what it does.
# Networks say that they begin, and wait while there is a file "closed". No example is compared.
GATED = """
import os, pathlib, time
from segmodels.demo.callbacks import Callbacks
from segmodels.inference.segmenter import Segmenter
closed = pathlib.Path(os.environ["GRADIO_TEMP_DIR"], "closed")
Callbacks.welcome = lambda self, scene, key="": {}
segment = Segmenter.__call__
def gated(self, *arguments, **options):
    print("* SEGMENTS", flush=True)
    while closed.exists():
        time.sleep(0.02)
    return segment(self, *arguments, **options)
Segmenter.__call__ = gated
"""
# Uploads and results are deleted half a second after they were last used while there is a file
# "sweep".
SWEPT = """
from segmodels.demo import server
from segmodels.demo.file_sweeper import FileSweeper
server.UPKEEP_SECONDS = 0.5
sweep = FileSweeper.sweep
def when_asked(self):
    asked = (self.folder.parents[1] / "sweep").exists()
    self.max_age = 0.5 if asked else server.KEPT_SECONDS
    return sweep(self)
FileSweeper.sweep = when_asked
"""


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
    models: str, folder: Path, *, prelude: str = "pass", **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of the demo, which keeps its files and log.txt in `folder`.
    prelude: Python before it starts. variables: of its environment."""
    port = free_port()
    log = folder / "log.txt"
    environment = {
        **os.environ,
        "SEGMODELS_MODELS": models,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder),
        **variables,
    }
    program = f"{prelude}\nfrom segmodels.demo.page import main; main()"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=output, stderr=output, env=environment
        )
    try:
        deadline = time.monotonic() + PATIENCE
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
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def upload_folder(folder: Path) -> Path:
    """Where a demo that runs in `folder` keeps uploads and results, which it calls /files."""
    (files,) = folder.glob("segmodels-*/files")
    return files


class RefusedError(Exception):
    """The server's answer is a message, and not a class map."""


class QueueFullError(RefusedError):
    """The server has told that its queue is full."""


class Visitor:
    """A program that calls the demo by plain HTTP, as gradio documents it for curl."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=f"{address}/gradio_api", timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def upload(self, content: bytes, name: str = "picture.png") -> str:
        """The picture's path on the server."""
        answer = self.http.post("/upload", files={"files": (name, content)})
        if answer.status_code != 200:
            raise RefusedError(answer.text)
        return answer.json()[0]

    def call(self, endpoint: str, path: str, choice: str) -> str:
        """Queue a call; its id."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        answer = self.http.post(f"/call/{endpoint}", json={"data": [file, choice]})
        if answer.status_code == 503:
            raise QueueFullError(answer.json()["detail"])
        if answer.status_code != 200:
            raise RefusedError(answer.text)
        return answer.json()["event_id"]

    def answer(self, endpoint: str, event: str) -> Any:
        """What the call gave, once it is there."""
        last, kind = None, ""
        with self.http.stream("GET", f"/call/{endpoint}/{event}") as stream:
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name == "data" and kind == "error":
                    raise RefusedError((json.loads(value) or {}).get("error"))
                if name == "data" and kind in ("generating", "complete"):
                    last = json.loads(value) or last
        if kind != "complete":
            raise ConnectionError(f"the stream ended with {kind!r}")
        return last[0]

    def segment(self, content: bytes, model: str) -> NDArray[np.uint8]:
        """The picture's class map (H, W)."""
        result = self.answer("segment", self.call("segment", self.upload(content), model))
        file = self.http.get(f"/file={result['path']}")
        file.raise_for_status()
        return np.array(Image.open(io.BytesIO(file.content)))

    def compare(self, content: bytes, scene: str = "road") -> dict[str, Any]:
        return self.answer("compare", self.call("compare", self.upload(content), scene))


def picture(seed: int) -> NDArray[np.uint8]:
    """A picture that no other seed has, of a size that few others have."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), np.uint8)
    size = (40 + seed % 17, 30 + seed % 13)
    return np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
