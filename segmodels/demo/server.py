"""Serving the page in public: startup, maintenance and graceful shutdown.

The limits on HTTP requests are in http_limits.py.
"""

import atexit
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from segmodels.demo import PORT_VARIABLE, invalid_port, quiet_logs
from segmodels.demo.file_sweeper import FileSweeper
from segmodels.demo.http_limits import HOSTS_VARIABLE, LOCAL_NAMES, HttpLimits, HttpPolicy
from segmodels.demo.uploads import UploadFolder, receive_uploads_cleanly
from segmodels.utils.malloc import share_memory, trim_memory

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "GRADIO_TEMP_DIR"  # Gradio's folder of uploads and results
PREFIX = "segmodels-"
KEPT_SECONDS = 600.0  # how long uploads and results are kept after their last use
UPKEEP_SECONDS = 10.0  # interval between maintenance runs
FETCH_SECONDS = 120.0  # how long an answer waits to be fetched
HEADER_SECONDS = 20.0  # time limit for a connection to send a request
REST_SECONDS = 5.0  # idle time after which memory is returned to the system
MAX_SESSIONS = 200  # sessions that Gradio keeps, 0.1 MB each plus their State
MAX_CONNECTIONS = 800
DRAIN_SECONDS = 20.0  # time to finish accepted calls; containers are killed after 30
LINGER_SECONDS = 2.0  # time for the last answers to be fetched


class ServerError(SystemExit):
    """The page cannot be served. Exits the process with a message.

    Args:
        problem: Description of the problem.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"segmodels: {problem}")


def prepare(max_pixels: int) -> None:
    """Prepare the process. Must be called before the page is built.

    Creates temporary folders for this process that are deleted when it exits, deletes those left by
    processes that were killed, and sets the process-wide options of Pillow and malloc.

    Args:
        max_pixels: Pixel limit for embedded images (icons), which Pillow itself has to enforce.

    Raises:
        ServerError: If the folders cannot be created.
    """
    share_memory()
    quiet_logs.install()
    receive_uploads_cleanly()
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow raises an error above twice this value
    parent = Path(os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{PREFIX}*-*"):
            process = left.name.removeprefix(PREFIX).split("-")[0]
            if process.isdigit() and not _is_running(int(process)):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent)).resolve()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name in ("files", "work"):
            (folder / name).mkdir()
    except OSError as error:
        raise ServerError(f"cannot create folders in {parent}: {error.strerror}") from error
    os.environ[FOLDER_VARIABLE] = str(folder / "files")
    tempfile.tempdir = str(folder / "work")


def _is_running(process: int) -> bool:
    """Whether another process with this id is running."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # os.kill would terminate the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # owned by another user
        return True
    return True


def serve(
    page: gr.Blocks,
    *,
    max_upload: int,
    middleware: Sequence[Middleware] = (),
    kept_seconds: float = KEPT_SECONDS,
    server_name: str | None = None,
    server_port: int | None = None,
    **options: Any,
) -> None:
    """Serve the page until SIGTERM or Ctrl+C, then shut down gracefully.

    During shutdown, no new calls are accepted and running ones are finished. A second signal
    ends the process immediately.

    Args:
        page: The page, built after `prepare`.
        max_upload: Maximum bytes per upload.
        middleware: ASGI middleware that wraps the limits of http_limits.py.
        kept_seconds: How long uploads and results are kept after their last use.
        server_name: Address to listen on; defaults to GRADIO_SERVER_NAME or 127.0.0.1.
        server_port: Port to listen on; defaults to GRADIO_SERVER_PORT or the first free port from
            7860.
        **options: Further arguments of `gr.Blocks.launch`.

    Raises:
        ServerError: If the port cannot be used.
    """
    name = server_name or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    port = chosen_port(name, server_port)
    folder = Path(os.environ[FOLDER_VARIABLE])
    sweeper = FileSweeper(folder, kept_seconds)
    policy = HttpPolicy(page, UploadFolder(folder), sweeper, max_upload, allowed_hosts(name))
    stop = threading.Event()
    defaults = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in defaults:
        signal.signal(number, lambda *_: stop.set())
    page.launch(
        prevent_thread_lock=True,
        server_name=name,
        server_port=port,
        max_file_size=max_upload,
        state_session_capacity=MAX_SESSIONS,
        app_kwargs={"middleware": [*middleware, Middleware(HttpLimits, policy)]},
        _frontend=False,  # otherwise Gradio gives up if the first page takes longer than 3 s
        **options,
    )
    page.server.config.limit_concurrency = MAX_CONNECTIONS
    upkeep = Upkeep(page, policy)
    while not stop.wait(0.5):  # an unlimited wait would block signals on Windows
        upkeep.tick()
    for number, handler in defaults.items():
        signal.signal(number, handler)
    policy.stopping = True
    if is_at_work(page):
        print("Finishing accepted calls before stopping ...", flush=True)
        deadline = time.monotonic() + DRAIN_SECONDS
        while is_at_work(page) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(LINGER_SECONDS)
    page.server.config.timeout_graceful_shutdown = 1  # open pages would delay the shutdown
    page.close(verbose=False)


def chosen_port(name: str, port: int | None) -> int | None:
    """Return the port to listen on after checking it, or None for any free port.

    Args:
        name: Address to listen on.
        port: The port; defaults to GRADIO_SERVER_PORT.

    Raises:
        ServerError: If the port is invalid or cannot be used.
    """
    given = (os.environ.get(PORT_VARIABLE) or invalid_port) if port is None else str(port)
    if not given:
        return None
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise ServerError(f"{given!r} is not a port: expected a number from 1 to 65535")
    try:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        with socket.socket(family) as probe:
            if os.name != "nt":  # on Windows, this would allow two servers on one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((name.strip("[]"), int(given)))
    except OSError as error:
        raise ServerError(
            f"port {given} on {name} cannot be used ({error.strerror}): choose another with --port "
            "or GRADIO_SERVER_PORT"
        ) from error
    return int(given)


def allowed_hosts(name: str) -> tuple[str, ...] | None:
    """Return the host names that requests may be addressed to; None allows all.

    A server that only listens locally is thus protected against DNS rebinding.

    Args:
        name: Address that the server listens on.
    """
    configured = os.environ.get(HOSTS_VARIABLE, "")
    if configured.strip() == "*":
        return None
    names = [host.strip().lower() for host in configured.split(",") if host.strip()]
    if name.strip("[]") not in LOCAL_NAMES and not names:
        return None
    root = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname
    return (*LOCAL_NAMES, *names, *([root] if root else []))


def is_at_work(page: gr.Blocks) -> bool:
    """Whether any calls are running or waiting."""
    return len(page._queue) > 0 or page._queue.get_active_worker_count() > 0


class Upkeep:
    """Periodic maintenance of a long-running server.

    It deletes old files, discards answers that nobody fetched, closes idle connections and returns
    memory to the system.
    """

    def __init__(self, page: gr.Blocks, policy: HttpPolicy) -> None:
        self.page = page
        self.policy = policy
        self._next = 0.0
        self._worked: float | None = None  # time of the last work since memory was trimmed
        self._unfetched: dict[str, float] = {}  # session -> time since when nobody listens
        self._silent: dict[Any, float] = {}  # connection -> time since when it has been idle

    def tick(self) -> None:
        """Run the tasks that are due. Called twice per second."""
        now = time.monotonic()
        if is_at_work(self.page):
            self._worked = now
        elif self._worked is not None and now - self._worked > REST_SECONDS:
            trim_memory()
            self._worked = None
        if now < self._next:
            return
        self._next = now + UPKEEP_SECONDS
        self._attempt(self.delete_files)
        if self.policy.loop is not None:  # these read state that is changed in the event loop
            self.policy.loop.call_soon_threadsafe(self._attempt, self.forget_answers)
            self.policy.loop.call_soon_threadsafe(self._attempt, self.close_connections)

    def _attempt(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # a failed task must not stop the server
            quiet_logs.log_failure("upkeep", error)

    def delete_files(self) -> None:
        deleted = self.policy.sweeper.sweep()
        for paths in self.page.temp_file_sets:  # Gradio never removes entries itself
            paths.difference_update(deleted)

    def forget_answers(self) -> None:
        queue = self.page._queue
        waiting = set(queue.pending_messages_per_session) | set(queue.pending_event_ids_session)
        waiting -= {event.session_hash for event in queue.event_ids_to_events.values()}
        waiting -= set(self.policy.listening)
        now = time.monotonic()
        self._unfetched = {session: self._unfetched.get(session, now) for session in waiting}
        for session, since in self._unfetched.items():
            if now - since > FETCH_SECONDS:
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)

    def close_connections(self) -> None:
        """Close idle connections; uvicorn has no time limit for receiving request headers."""
        now = time.monotonic()
        silent = {}
        for connection in self.page.server.server_state.connections:
            cycle = getattr(connection, "cycle", None)  # the last request
            if cycle is None or cycle.response_complete:
                silent[connection, cycle] = self._silent.get((connection, cycle), now)
        self._silent = silent
        for (connection, _), since in silent.items():
            if now - since > HEADER_SECONDS:
                connection.transport.close()
