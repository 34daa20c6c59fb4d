"""Hostile requests against a server of small networks on this machine:
`python -m tests.load.attack [--seconds 60]`.

Five attacks share the time: every route with odd methods and paths, bodies that are too long or
malformed, clients that send slowly or leave, answers that nobody fetches, and a full disk (where a
small one can be mounted). After each, a well-behaved client must get its right answer. Prints for
each how many requests were answered with which status, the server's memory, and what should not
have been; exit status 1 if there is any. Nothing but the loopback interface is used.
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.load.soak import known_answers, memory_of
from tests.support.server import (
    RefusedError,
    Visitor,
    picture,
    png,
    running,
    upload_folder,
    write_networks,
)

NETWORK = "unet-camvid"
MAX_REQUESTS = 2000  # of one attack
DISK = "8m"
WORDS = (
    *("gradio_api", "file=", "file", "proxy=", "..", "%2e%2e", "etc", "passwd", "config", "queue"),
    *("join", "data", "call", "run", "api", "upload", "monitoring", "dev", "reload", "assets"),
    *("http:", "", "stream", "component_server", "login", "files", "\\", "%00", "a" * 3000),
)


@dataclass
class Report:
    """What an attack met. statuses: of the answers. problems: what should not have been."""

    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def count(self, answer: httpx.Response) -> None:
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code == 500:
            self.problems.append(f"500 at {answer.request.method} {answer.request.url}"[:200])


@dataclass
class Target:
    """A running server."""

    address: str
    folder: Path
    random: random.Random
    deadline: float = 0.0

    def goes_on(self, requests: int) -> bool:
        return requests < MAX_REQUESTS and time.monotonic() < self.deadline

    def connect(self) -> socket.socket:
        host, port = self.address.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=30)


def routes(target: Target, report: Report) -> None:
    """Random paths of Gradio's words, with every method and in both forms."""
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
    with httpx.Client(timeout=30) as http:
        for number in range(MAX_REQUESTS):
            if not target.goes_on(number):
                break
            words = target.random.choices(WORDS, k=target.random.randint(1, 5))
            path = target.random.choice(["/", "/seg/"]) + "/".join(words)
            with http.stream(target.random.choice(methods), target.address + path) as answer:
                report.count(answer)
                if answer.status_code == 200 and "passwd" in path:
                    report.problems.append(f"200 at {path}"[:200])


def bodies(target: Target, report: Report) -> None:
    """Bodies too long, chunked, malformed, deep, of wrong types, on every route that takes one."""
    paths = [
        *("/gradio_api/queue/join", "/gradio_api/call/segment", "/gradio_api/run/segment"),
        *("/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/upload", "/login", "/config"),
        *("/gradio_api/call/v2/segment", "/gradio_api/component_server"),
    ]
    values = [None, 5, "x", [], {}, [None], {"path": "/etc/passwd"}, {"url": "http://a.b"}, [[[]]]]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with httpx.Client(base_url=target.address, timeout=60) as http:
        for number in range(MAX_REQUESTS):
            if not target.goes_on(number):
                break
            path, kind = target.random.choice(paths), number % 5
            if kind == 0 and number % 25 == 0:
                content = (bytes(1_000_000) for _ in range(60))  # chunked
                report.count(http.post(path, content=content, headers=headers))
            elif kind == 1:
                length = target.random.randint(0, 300)
                report.count(http.post(path, content=target.random.randbytes(length)))
            elif kind == 2:
                report.count(http.post(path, content=b"[" * 50_000))
            elif kind == 3:
                part = (
                    b'--x\r\nContent-Disposition: form-data; name="files"; filename="../a"\r\n\r\n'
                )
                content = part + target.random.randbytes(500) + b"\r\n--x--\r\n"
                content = content[: target.random.randint(0, len(content))]
                report.count(http.post(path, content=content, headers=headers))
            else:
                data = target.random.choices(values, k=target.random.randint(0, 4))
                body = {"data": data, "fn_index": target.random.choice([0, -1, 10**9, "x", None])}
                report.count(http.post(path, json={**body, "session_hash": "attack"}))


def slow_clients(target: Target, report: Report) -> None:
    """Connections that send a byte now and then, or nothing; and clients that leave at once."""
    heads = [b"", b"GET / HT", b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"]
    call = (
        b"POST /gradio_api/call/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
    )
    with ExitStack() as stack:
        connections = []
        for number in range(200):
            connection = stack.enter_context(target.connect())
            connection.sendall([*heads, call][number % 4])
            connections.append(connection)
            report.statuses["slow"] += 1
        while target.goes_on(0):
            for connection in connections:
                with suppress(OSError):  # the server has closed it
                    connection.sendall(b"x")
            with Visitor(target.address) as visitor:
                path = visitor.upload(png(picture(0)))
                event = visitor.call("segment", path, NETWORK)
                with visitor.http.stream("GET", f"/call/segment/{event}"):
                    report.statuses["left"] += 1
            time.sleep(0.5)


def unfetched_answers(target: Target, report: Report) -> None:
    """Calls whose answers nobody fetches, and streams that nobody has opened a session for."""
    with Visitor(target.address) as visitor:
        path = visitor.upload(png(picture(0)))
        for number in range(MAX_REQUESTS):
            if not target.goes_on(number):
                break
            try:
                visitor.call("segment", path, NETWORK)
                report.statuses["unfetched"] += 1
            except RefusedError:
                report.statuses["queue full"] += 1
            for route in (f"/call/segment/{number:032x}", f"/queue/data?session_hash={number}"):
                report.count(visitor.http.get(route))
            time.sleep(0.02)


def full_disk(target: Target, report: Report) -> None:
    """Uploads until the disk is full, and then some; files must not be left, and it recovers."""
    with Visitor(target.address) as visitor:
        for number in range(200):
            if not target.goes_on(number):
                break
            content = target.random.randbytes(2_000_000)
            files = {"files": (f"{number}.png", content)}
            answer = visitor.http.post("/upload", files=files)
            report.count(answer)
            if answer.status_code not in (200, 507, 503):
                report.problems.append(f"{answer.status_code} for an upload to a full disk")
    partial = [path for path in upload_folder(target.folder).iterdir() if path.is_file()]
    if partial:
        report.problems.append(f"{len(partial)} files left by uploads that failed")
    for path in upload_folder(target.folder).rglob("*.png"):  # as the sweeper does in time
        path.unlink()


ATTACKS: dict[str, Callable[[Target, Report], None]] = {
    "routes": routes,
    "bodies": bodies,
    "slow clients": slow_clients,
    "unfetched answers": unfetched_answers,
    "full disk": full_disk,
}


def is_served(address: str, expected: np.ndarray) -> bool:
    """Whether a well-behaved client gets its right answer, within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(RefusedError, httpx.HTTPError), Visitor(address) as visitor:
            return np.array_equal(visitor.segment(png(picture(1)), NETWORK), expected)
        time.sleep(0.5)
    return False


def mounted(folder: Path) -> bool:
    """Whether a small disk could be mounted there; that needs root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def attack(seconds: float, seed: int, parent: Path) -> list[str]:
    """Run all attacks on a new server each for the routes and the disk; the problems."""
    models = write_networks(parent / "models")
    expected = known_answers(models)[NETWORK, 1]
    problems = []
    for name, run in ATTACKS.items():
        folder = parent / name.replace(" ", "-")
        folder.mkdir()
        is_small = name == "full disk" and mounted(folder)
        if name == "full disk" and not is_small:
            print(f"{name}: left out, for no small disk can be mounted here")
            continue
        uploads = "import segmodels.demo.uploads as uploads; uploads.MAX_UPLOAD = 3_000_000"
        try:
            with running(
                models,
                folder,
                prelude=uploads if is_small else "pass",
                GRADIO_ROOT_PATH="/seg",
            ) as (address, process):
                before = memory_of(process)
                target, report = Target(address, folder, random.Random(seed)), Report()
                target.deadline = time.monotonic() + seconds / len(ATTACKS)
                run(target, report)
                if not is_served(address, expected):
                    report.problems.append("a well-behaved client was not served afterwards")
                memory = f"{before / 1e6:.0f} -> {memory_of(process) / 1e6:.0f} MB"
                if process.poll() is not None:
                    report.problems.append("the server ended")
            lines = (folder / "log.txt").read_text().count("Traceback")
            if lines:
                report.problems.append(f"{lines} tracebacks in the log")
        finally:
            if is_small:
                subprocess.run(["umount", str(folder)], check=False)
        print(f"{name}: {json.dumps(dict(sorted(report.statuses.items())))}; memory {memory}")
        problems += [f"{name}: {problem}" for problem in report.problems]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end, and disks are unmounted
    with tempfile.TemporaryDirectory() as name:
        problems = attack(options.seconds, options.seed, Path(name))
    print("\n".join(problems[:20]) or "no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
