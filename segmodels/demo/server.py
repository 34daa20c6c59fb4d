"""Serving a gradio page to strangers: limits, closed doors, and an orderly end."""

import atexit
import json
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmodels.utils.malloc import share_memory

FOLDER = "GRADIO_TEMP_DIR"  # gradio's variable for where uploads and results lie
PREFIX = "segmodels-"
MAX_JSON = 1_000_000  # bytes of a call; its picture is uploaded before
MAX_STORED = 4_000_000_000  # bytes of uploads and results that lie there at once
MAX_SESSIONS = 200  # that gradio remembers, 0.1 MB each and what their State holds
PATIENCE = 20.0  # seconds to finish what was accepted; containers are killed after 30
LINGER = 2.0  # seconds to take the last answers away
# Gradio's doors that the page has no use for: pictures of the process, other web sites, editing.
CLOSED = (
    *("/monitoring", "/gradio_api/proxy=", "/gradio_api/file=http:", "/gradio_api/file=https:"),
    *("/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/vibe"),
    *("/gradio_api/run-history", "/gradio_api/runs", "/gradio_api/profiling", "/gradio_api/dev"),
)
CALLS = ("/gradio_api/queue/join", "/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/")
UPLOAD = "/gradio_api/upload"


def prepare(max_pixels: int) -> None:
    """Before the page is built: a folder of this process alone for uploads and results, deleted
    when it ends, and what Pillow and malloc do process-wide. Folders of processes that were killed
    go too.

    max_pixels: for pictures inside of others (icons), which Pillow itself must refuse.
    """
    share_memory()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged metadata, at strangers' will
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow refuses twice as many
    parent = Path(os.environ.get(FOLDER) or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{PREFIX}*-*"):
        if not _is_running(left.name.removeprefix(PREFIX).split("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    os.environ[FOLDER] = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent)
    atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)


def _is_running(process: str) -> bool:
    """Whether another process has this id."""
    if not process.isdigit() or int(process) == os.getpid():
        return False
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def serve(page: gr.Blocks, *, max_upload: int, **options: Any) -> None:
    """Serve the page until SIGTERM or Ctrl+C; then take nothing new, finish what was accepted, and
    return. A second signal ends the process at once.

    max_upload: bytes of an upload. options: of `gr.Blocks.launch`.
    """
    gate = Gate(max_upload)
    stop = threading.Event()
    defaults = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in defaults:
        signal.signal(number, lambda *_: stop.set())
    page.launch(
        prevent_thread_lock=True,
        max_file_size=max_upload,
        state_session_capacity=MAX_SESSIONS,
        app_kwargs={"middleware": [Middleware(Guard, gate)]},
        **options,
    )
    while not stop.wait(0.5):  # a wait without end would not see signals on Windows
        pass
    for number, handler in defaults.items():
        signal.signal(number, handler)
    gate.stopping = True
    if _is_at_work(page):
        print("Stopping when what was accepted is done ...", flush=True)
        deadline = time.monotonic() + PATIENCE
        while _is_at_work(page) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(LINGER)
    page.server.config.timeout_graceful_shutdown = 1  # pages that are open would keep it waiting
    page.close(verbose=False)


def _is_at_work(page: gr.Blocks) -> bool:
    return len(page._queue) > 0 or page._queue.get_active_worker_count() > 0


@dataclass
class Gate:
    """What the guard of a server goes by. stopping: nothing new is taken."""

    max_upload: int
    stopping: bool = False


class Guard:
    """ASGI middleware between the world and gradio."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        refusal: JSONResponse | None = None
        if scope["type"] == "http":
            if path.startswith(CLOSED):
                refusal = _refusal(404, "Not found")
            elif scope["method"] == "POST":
                refusal = self._refused(path, _content_length(scope))
            if refusal is None and path.startswith(CALLS) and scope["method"] == "POST":
                receive, refusal = await _checked_call(receive)
            elif refusal is None and path.startswith(UPLOAD):
                receive = self._counted(receive)
        await (refusal or self.app)(scope, receive, send)

    def _refused(self, path: str, length: int) -> JSONResponse | None:
        """A POST that is refused before its body is read."""
        if self.gate.stopping and path.startswith((*CALLS, UPLOAD)):
            return _refusal(503, "The server is stopping; try again in a minute.")
        limit = self.gate.max_upload + MAX_JSON if path.startswith(UPLOAD) else MAX_JSON
        if length > limit:
            return _refusal(413, f"{length} bytes are too many; at most {limit} are accepted.")
        if path.startswith(UPLOAD) and _stored_bytes() > MAX_STORED:
            return _refusal(503, "Too many pictures are waiting; try again in some minutes.")
        return None

    def _counted(self, receive: Receive) -> Receive:
        """An upload, cut off at the limit whatever length it was said to have. Gradio's parser
        deletes what it has written when it meets this exception, and answers with its message."""
        received, limit = 0, self.gate.max_upload + MAX_JSON

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MultiPartException("the upload was cut off")
            received += len(message.get("body", b""))
            if received > limit:
                raise MultiPartException(f"more than the maximum allowed size of {limit} bytes")
            return message

        return counted


async def _checked_call(receive: Receive) -> tuple[Receive, JSONResponse | None]:
    """The call's body, to be received again, or why it is refused."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_JSON:
            return receive, _refusal(413, f"A call has at most {MAX_JSON} bytes.")
    try:
        has_address = _has_address(json.loads(body or b"null"))
    except (ValueError, RecursionError):
        return receive, _refusal(400, "The body is not JSON.")
    if has_address:
        problem = "give the picture itself: this server fetches nothing from other addresses"
        detail = {"__type__": "validate", "is_valid": False, "message": problem}
        return receive, _refusal(422, [{**detail, "parameter_name": "picture"}])
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again, None


def _has_address(data: Any) -> bool:
    """Whether a file in the call is to be fetched from the web, or from a folder by its address."""
    if isinstance(data, list):
        return any(_has_address(item) for item in data)
    if not isinstance(data, dict):
        return False
    path = data.get("path")
    return (isinstance(path, str) and "://" in path) or any(map(_has_address, data.values()))


def _refusal(status: int, detail: Any) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def _stored_bytes() -> int:
    total = 0
    for path in Path(os.environ[FOLDER]).rglob("*"):
        with suppress(FileNotFoundError):  # deleted meanwhile
            total += path.lstat().st_size
    return total
