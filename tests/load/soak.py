"""Many clients at once against one server of small networks:
`python -m tests.load.soak [--clients 50] [--seconds 120]`.

Each client sends pictures whose class maps it knows, now and then what is no picture, and checks
what comes back. Prints how many were served, told that the queue is full, refused with a message,
lost or answered wrongly, and the server's memory after a warm-up, every 30 seconds, when all have
left, and before and after a picture of 49 megapixels.
"""

import argparse
import io
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels import Segmenter, load_model
from tests.support.server import (
    QueueFullError,
    RefusedError,
    Visitor,
    picture,
    png,
    running,
    write_networks,
)

PICTURES = 40
WARM_UP = 30.0  # seconds in which threads, caches and gradio's sessions come to be
LARGE = 7000  # pixels, the side of the large picture
REST = 20.0  # seconds after which the memory is looked at once more


@dataclass
class Report:
    """counts: of answers by their kind. problems: what should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        return Report(
            self.counts + other.counts,
            self.problems + other.problems,
            max(self.slowest, other.slowest),
        )

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"{counts}; slowest answer {self.slowest:.1f} s"


def known_answers(models: str) -> dict[tuple[str, int], NDArray[np.uint8]]:
    """The class map of each network for each picture."""
    segmenters = {Path(model).name: Segmenter(load_model(model)) for model in models.split(",")}
    return {
        (name, seed): segmenter(picture(seed)).class_map
        for name, segmenter in segmenters.items()
        for seed in range(PICTURES)
    }


def bad_pictures() -> list[bytes]:
    whole = png(picture(0))
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF
    return [b"no picture", whole[:200], bytes(flipped), b"\x89PNG\r\n\x1a\n", bytes(5000)]


def soak(
    address: str,
    answers: dict[tuple[str, int], NDArray[np.uint8]],
    *,
    clients: int,
    seconds: float,
) -> Report:
    """Let so many clients send pictures for so long, each at least one."""
    report, lock, end = Report(), threading.Lock(), time.monotonic() + seconds
    bad = bad_pictures()

    def client(number: int) -> None:
        random = np.random.default_rng(number)
        with Visitor(address) as visitor:
            request(visitor, random)
            while time.monotonic() < end:
                request(visitor, random)

    def request(visitor: Visitor, random: np.random.Generator) -> None:
        start = time.monotonic()
        try:
            kind = one_request(visitor, random)
        except Exception as error:  # whatever it is, the request is lost
            kind = f"lost: {type(error).__name__}: {error}"
        with lock:
            report.counts[kind.partition(":")[0]] += 1
            report.slowest = max(report.slowest, time.monotonic() - start)
            if kind.startswith(("lost", "wrong")):
                report.problems.append(kind)
        if kind == "queue full":
            time.sleep(0.2 + random.random())

    def one_request(visitor: Visitor, random: np.random.Generator) -> str:
        is_bad = random.random() < 0.2
        (name, seed), expected = list(answers.items())[random.integers(len(answers))]
        content = bad[random.integers(len(bad))] if is_bad else png(picture(seed))
        try:
            if random.random() < 0.2:
                height, width = expected.shape
                same = visitor.compare(content)["size"] == [width, height]
            else:
                same = np.array_equal(visitor.segment(content, name), expected)
        except QueueFullError:
            return "queue full"
        except RefusedError as error:
            known = is_bad and "picture" in str(error)
            return "refused" if known else f"wrong: refused a good picture: {error}"
        return "served" if same and not is_bad else f"wrong: {name} {seed} {is_bad}"

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def memory_of(process: subprocess.Popen[bytes]) -> int:
    """Bytes resident."""
    command = ["ps", "-o", "rss=", "-p", str(process.pid)]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def large_picture(address: str, process: subprocess.Popen[bytes]) -> list[int]:
    """Memory before a picture of 49 megapixels, right after its comparison, and at rest."""
    file = io.BytesIO()
    Image.new("RGB", (LARGE, LARGE), (90, 120, 200)).save(file, "PNG", compress_level=1)
    memory = [memory_of(process)]
    with Visitor(address) as visitor:
        visitor.compare(file.getvalue())
    memory.append(memory_of(process))
    time.sleep(REST)
    return [*memory, memory_of(process)]


def megabytes(sizes: Sequence[int]) -> str:
    return " -> ".join(f"{size / 1e6:.0f} MB" for size in sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = write_networks(folder / "models")
        answers = known_answers(models)
        with running(models, folder) as (address, process):
            soak(address, answers, clients=options.clients, seconds=WARM_UP)
            memory, report = [memory_of(process)], Report()
            parts = max(1, round(options.seconds / 30))
            for _ in range(parts):
                part = soak(
                    address, answers, clients=options.clients, seconds=options.seconds / parts
                )
                memory.append(memory_of(process))
                report = report + part
            time.sleep(REST)
            memory.append(memory_of(process))
            large = large_picture(address, process)
    print(f"{report}; memory {megabytes(memory)}; {LARGE} x {LARGE} pixels: {megabytes(large)}")
    print("\n".join(report.problems[:20]) or "no problems")
    return 1 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
