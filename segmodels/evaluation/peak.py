"""Peak memory of one network on one picture: `python -m segmodels.peak SOURCE DEVICE WAY`.

WAY is "plain" (eager float32) or "segmenter". Prints the bytes over the weights for a picture of
480 x 360; exit status 1 where the system does not tell. A process of its own, so that nothing
else's memory is counted or used again.
"""

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segmodels.inference.segmenter import Segmenter, normalise
from segmodels.models.base import load_model

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most memory in use during `work`, less what was in use before. OSError where the system
    does not tell."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise OSError(f"{device} does not tell its memory's peak")
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that it counts again
    CLEAR_REFS.write_text("5")  # resets VmHWM (man 5 proc)
    before = _kibibytes("VmRSS")
    work()
    return 1024 * (_kibibytes("VmHWM") - before)


def _kibibytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1])


def work_of(source: str, device: torch.device, way: str) -> Callable[[int, int], object]:
    """Segmenting a grey picture of (height, width) in that way."""
    model = load_model(source)
    if way == "segmenter":
        segmenter = Segmenter(model, device)
        return lambda height, width: segmenter(np.full((height, width, 3), 128, np.uint8))
    model = model.to(device)

    def plain(height: int, width: int) -> object:
        with torch.inference_mode():
            pixels = torch.full((1, model.in_channels, height, width), 0.5, device=device)
            return model(normalise(pixels, model)).argmax(1).cpu()

    return plain


def main() -> int:
    source, device, way = sys.argv[1:]
    work = work_of(source, torch.device(device), way)
    work(64, 64)  # loads what is loaded once
    try:
        print(peak_bytes(lambda: work(360, 480), torch.device(device)))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
