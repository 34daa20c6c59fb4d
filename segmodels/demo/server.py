"""Serving the page to the public: start, upkeep while it runs, graceful shutdown. What is accepted
over HTTP is in http_limits.py."""

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

FOLDER_VARIABLE = "GRADIO_TEMP_DIR"  # Gradio's, for where uploads and results lie
PREFIX = "segmodels-"
KEPT_SECONDS = 600.0  # for which uploads and results are kept after they were last used
UPKEEP_SECONDS = 10.0  # between two looks at what is old
FETCH_SECONDS = 120.0  # for which an answer waits to be fetched
HEADER_SECONDS = 20.0  # for a connection to send a request
REST_SECONDS = 5.0  # without work, after which memory is given back
MAX_SESSIONS = 200  # that Gradio remembers, 0.1 MB each and what their State holds
MAX_CONNECTIONS = 800
DRAIN_SECONDS = 20.0  # to finish what was accepted; containers are killed after 30
LINGER_SECONDS = 2.0  # for the last answers to be fetched


class ServerError(SystemExit):
    """Why the page cannot be served; ends the process with this sentence.

    Args:
        problem: The sentence.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"segmodels: {problem}")


def prepare(max_pixels: int) -> None:
    """Before the page is built: make folders of this process alone for its temporary files, deleted
    when it ends, and set what Pillow and malloc do process-wide. Folders of processes that were
    killed are deleted too.

    Args:
        max_pixels: For images inside of others (icons), which Pillow itself must refuse.

    Raises:
        ServerError: If the folders cannot be made.
    """
    share_memory()
    quiet_logs.install()
    receive_uploads_cleanly()
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow refuses twice as many
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
        raise ServerError(f"{parent} cannot hold temporary files: {error.strerror}") from error
    os.environ[FOLDER_VARIABLE] = str(folder / "files")
    tempfile.tempdir = str(folder / "work")


def _is_running(process: int) -> bool:
    """Whether another process has this id."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
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
    """Serve the page until SIGTERM or Ctrl+C; then accept nothing new, finish what was accepted,
    and return. A second signal ends the process at once.

    Args:
        page: Built after `prepare`.
        max_upload: Bytes of one upload.
        middleware: ASGI middleware around the limits of http_limits.py.
        kept_seconds: For which uploads and results are kept after they were last used.
        server_name: Address to listen at; by default GRADIO_SERVER_NAME or 127.0.0.1.
        server_port: By default GRADIO_SERVER_PORT, or the first free port from 7860 on.
        options: Of `gr.Blocks.launch`.

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
        _frontend=False,  # Gradio would give up where a busy machine takes 3 s for the first page
        **options,
    )
    page.server.config.limit_concurrency = MAX_CONNECTIONS
    upkeep = Upkeep(page, policy)
    while not stop.wait(0.5):  # a wait without end would not see signals on Windows
        upkeep.tick()
    for number, handler in defaults.items():
        signal.signal(number, handler)
    policy.stopping = True
    if is_at_work(page):
        print("Stopping when what was accepted is done ...", flush=True)
        deadline = time.monotonic() + DRAIN_SECONDS
        while is_at_work(page) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(LINGER_SECONDS)
    page.server.config.timeout_graceful_shutdown = 1  # pages that are open would keep it waiting
    page.close(verbose=False)


def chosen_port(name: str, port: int | None) -> int | None:
    """The port to listen at: the one given or of GRADIO_SERVER_PORT, checked; None for whichever
    is free.

    Raises:
        ServerError: For one that is no port or cannot be used.
    """
    given = (os.environ.get(PORT_VARIABLE) or invalid_port) if port is None else str(port)
    if not given:
        return None
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise ServerError(f"{given!r} is not a port: expected a number from 1 to 65535")
    try:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        with socket.socket(family) as probe:
            if os.name != "nt":  # where it would allow two servers on one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((name.strip("[]"), int(given)))
    except OSError as error:
        raise ServerError(
            f"port {given} at {name} cannot be used ({error.strerror}): choose another with --port "
            "or GRADIO_SERVER_PORT"
        ) from error
    return int(given)


def allowed_hosts(name: str) -> tuple[str, ...] | None:
    """Names that requests may be addressed to, for a server that listens at `name`; None for every
    one. Who serves this machine alone is protected against DNS rebinding."""
    configured = os.environ.get(HOSTS_VARIABLE, "")
    if configured.strip() == "*":
        return None
    names = [host.strip().lower() for host in configured.split(",") if host.strip()]
    if name.strip("[]") not in LOCAL_NAMES and not names:
        return None
    root = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname
    return (*LOCAL_NAMES, *names, *([root] if root else []))


def is_at_work(page: gr.Blocks) -> bool:
    """Whether calls are running or waiting."""
    return len(page._queue) > 0 or page._queue.get_active_worker_count() > 0


class Upkeep:
    """What a server that runs for weeks does now and then: it deletes old files, forgets answers
    that nobody fetched, closes connections that send nothing, and gives memory back."""

    def __init__(self, page: gr.Blocks, policy: HttpPolicy) -> None:
        self.page = page
        self.policy = policy
        self._next = 0.0
        self._worked: float | None = None  # when work was last seen, since memory was given back
        self._unfetched: dict[str, float] = {}  # sessions, and since when nobody listens
        self._silent: dict[Any, float] = {}  # connections, and since when they send no request

    def tick(self) -> None:
        """Do what is due. Called twice a second."""
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
        if self.policy.loop is not None:  # where Gradio and uvicorn change what these two read
            self.policy.loop.call_soon_threadsafe(self._attempt, self.forget_answers)
            self.policy.loop.call_soon_threadsafe(self._attempt, self.close_connections)

    def _attempt(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # whatever it is, the server goes on
            quiet_logs.log_failure("upkeep", error)

    def delete_files(self) -> None:
        deleted = self.policy.sweeper.sweep()
        for paths in self.page.temp_file_sets:  # where Gradio would remember them forever
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
        """uvicorn has no time limit for a connection to send a request's head."""
        now = time.monotonic()
        silent = {}
        for connection in self.page.server.server_state.connections:
            cycle = getattr(connection, "cycle", None)  # its last request
            if cycle is None or cycle.response_complete:
                silent[connection, cycle] = self._silent.get((connection, cycle), now)
        self._silent = silent
        for (connection, _), since in silent.items():
            if now - since > HEADER_SECONDS:
                connection.transport.close()
