"""A served page, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds to wait for another process, however busy the machine


def free_port() -> int:
    """A TCP port of the loopback interface on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(log: Path, *command, python=sys.executable, **variables):
    """The address of a page that a Python command serves, with these environment variables."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "SEGMODELS_MODELS"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    environment |= {name: str(value) for name, value in variables.items()}
    with open(log, "w") as output:
        demo = subprocess.Popen([python, *command], stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while "Running on" not in log.read_text() and demo.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert demo.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        demo.terminate()
        try:
            demo.wait(PATIENCE)
        finally:
            demo.kill()
