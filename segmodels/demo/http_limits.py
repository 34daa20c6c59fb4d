"""Limits on what the server accepts over HTTP: routes, hosts, body sizes and transfer times.

`HttpLimits` is ASGI middleware in front of Gradio. Gradio has more routes than the page uses (to
fetch URLs, edit the app and show monitoring data); requests to routes not in `ROUTES` get a 404.
"""

import asyncio
import errno
import inspect
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gradio as gr
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmodels.demo.file_sweeper import FileSweeper
from segmodels.demo.quiet_logs import log_failure
from segmodels.demo.uploads import ALIAS, UploadFolder, map_paths, storage_problem
from segmodels.utils.formatting import count_of

log = logging.getLogger(__name__)

MAX_JSON = 1_000_000  # bytes per call; the picture is uploaded beforehand
MAX_STORED = 4_000_000_000  # total bytes of stored uploads and results
JSON_SECONDS = 20.0  # time limit for receiving the body of a call
UPLOAD_SECONDS = 300.0  # time limit for receiving an upload
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
HOSTS_VARIABLE = "SEGMODELS_ALLOWED_HOSTS"

_NAME = "[A-Za-z0-9_-]{1,64}"
ROUTES = {
    "asset": r"GET /(static|assets|svelte)/.+",
    "page": r"GET (/?|/config/?|/(gradio_api/)?theme\.css|/robots\.txt|/favicon\.ico"
    r"|/manifest\.json|/pwa_icon(/192|/512)?|/gradio_api/(info/?|openapi\.json|app_id/?"
    r"|startup-events|queue/status))",
    "file": rf"GET /gradio_api/file={ALIAS}/.+",
    "events": rf"GET /gradio_api/(heartbeat/{_NAME}|upload_progress)",
    "session": r"GET /gradio_api/queue/data",
    "answer": rf"GET /gradio_api/call/(v2/)?{_NAME}/(?P<event>{_NAME})",
    "upload": r"POST /gradio_api/upload",
    "call": rf"POST /gradio_api/(queue/join|(run|api|call|call/v2)/(?P<name>{_NAME}))/?",
    "small": r"POST /gradio_api/(cancel|reset/?)",
}
# Enabled only if the page uses them: camera streaming and MCP tools.
STREAM_ROUTES = {"call": rf"POST /gradio_api/stream/{_NAME}(/close)?"}
MCP_ROUTES = {"mcp": r"(GET|POST|DELETE) /gradio_api/mcp(/(http/?|sse/?|messages/?|schema)?)?"}
UPLOAD_FIRST = (
    "upload the file with POST /gradio_api/upload and pass "
    '{"path": "<the returned path>", "meta": {"_type": "gradio.FileData"}}. Base64 data and URLs '
    "are not accepted: this server does not fetch anything"
)


class RefusedError(Exception):
    """A request that is rejected with a status and a message; not a server error."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status)
        self.response = JSONResponse({"detail": detail}, status)


@dataclass
class HttpPolicy:
    """The limits of a server, and the state needed to enforce them.

    Attributes:
        page: The served page.
        uploads: Folder of uploads and results.
        sweeper: Sweeper of that folder; measures its size.
        max_upload: Maximum bytes per upload.
        hosts: Allowed host names; None allows all.
        stopping: Whether new calls and uploads are refused.
        streams: Ids of the events whose answers are being delivered.
        listening: Number of clients listening for answers, by session.
        loop: The server's event loop, set by the first request.
    """

    page: gr.Blocks
    uploads: UploadFolder
    sweeper: FileSweeper
    max_upload: int
    hosts: tuple[str, ...] | None = None
    stopping: bool = False
    streams: set[str] = field(default_factory=set)
    listening: Counter[str] = field(default_factory=Counter)
    loop: asyncio.AbstractEventLoop | None = None

    def routes(self) -> list[tuple[str, re.Pattern[str]]]:
        """Return the kind and pattern of each route that the page uses."""
        routes = list(ROUTES.items())
        if any(function.connection == "stream" for function in self.page.fns.values()):
            routes += STREAM_ROUTES.items()
        if self.page.mcp_server:
            routes += MCP_ROUTES.items()
        return [(kind, re.compile(pattern)) for kind, pattern in routes]


class HttpLimits:
    """ASGI middleware that enforces an `HttpPolicy` and turns failures into error responses.

    Args:
        app: The Gradio application.
        policy: The limits to enforce.
    """

    def __init__(self, app: ASGIApp, policy: HttpPolicy) -> None:
        self.app = app
        self.policy = policy
        self.routes = policy.routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            self.policy.loop = asyncio.get_running_loop()
            await self._answer(scope, receive, send)
        else:  # Gradio has no WebSocket routes
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; on any failure, respond with a status and a message."""
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._handle(scope, receive, tracked)
        except RefusedError as refusal:
            if not started:
                await refusal.response(scope, receive, send)
        except ClientDisconnect:
            pass
        except Exception as error:
            log_failure("a request", error)
            if not started:
                failed = RefusedError(500, "The server failed to process this request.")
                await failed.response(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        headers = Headers(scope=scope)
        self._check_host(headers)
        kind, match = self._route(scope["method"], path)
        if kind in ("call", "upload") and self.policy.stopping:
            raise RefusedError(503, "The server is stopping; try again in a minute.")
        if kind == "upload":
            await self._upload(scope, receive, self._hiding(send))
            return
        body = await _read(_counted(headers, receive, MAX_JSON, JSON_SECONDS))
        if scope["method"] == "POST":
            body = self._checked_body(kind, match, body)
        receive = _replayed(body, receive)
        if kind == "asset":
            await self.app(scope, receive, send)
        elif kind == "file":
            await self.app(self._file_scope(scope, path), receive, send)
        elif kind == "session":
            await self._session(scope, receive, self._hiding(send))
        elif kind == "answer":
            with self._delivery(match["event"]):
                await self.app(scope, receive, self._hiding(send))
        else:
            await self.app(scope, receive, self._hiding(send))

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self.policy.max_upload + MAX_JSON
        counted = _counted(Headers(scope=scope), receive, limit, UPLOAD_SECONDS)
        try:
            self._check_space()
            await self.app(scope, counted, send)
        except OSError as error:
            log.warning("could not store an upload: %s", error.strerror)
            raise RefusedError(*storage_problem(error)) from error

    def _route(self, method: str, path: str) -> tuple[str, re.Match[str]]:
        request = f"{'GET' if method == 'HEAD' else method} {path}"
        for kind, pattern in self.routes:
            if match := pattern.fullmatch(request):
                return kind, match
        raise RefusedError(404, "Not found")

    def _check_host(self, headers: Headers) -> None:
        """Reject DNS rebinding and requests from other sites if only this machine is served."""
        allowed = self.policy.hosts
        if allowed is None:
            return
        for name in ("host", "origin"):
            value = headers.get(name)
            if value is not None and _host_name(value, name) not in allowed:
                raise RefusedError(
                    403,
                    f"The {name} of this request is not allowed. Behind a proxy, start the server "
                    f"with {HOSTS_VARIABLE} set to its public host names.",
                )

    def _check_space(self) -> None:
        policy = self.policy
        policy.uploads.folder.mkdir(parents=True, exist_ok=True)
        if policy.sweeper.stored_bytes() > MAX_STORED:
            raise RefusedError(503, "Too many images are stored; try again in a few minutes.")
        if not policy.uploads.has_space(policy.max_upload):
            raise OSError(errno.ENOSPC, "no space left")

    def _file_scope(self, scope: Scope, path: str) -> Scope:
        """Rewrite the request of a file to the file's path on disk."""
        route, _, name = path.partition("=")
        real = self.policy.uploads.real_path(name)
        if real is None or not Path(real).is_file():
            raise RefusedError(
                404, "File not found; files are deleted a few minutes after their last use."
            )
        return {**scope, "path": f"{scope.get('root_path', '')}{route}={real}"}

    # ---- calls ----

    def _checked_body(self, kind: str, match: re.Match[str], body: bytes) -> bytes:
        """Check the JSON body of a POST and map its paths to those on disk."""
        try:
            data = json.loads(body)
            if not isinstance(data, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "The body is not a JSON object.") from error
        if kind == "call":
            self._check_call(match.groupdict().get("name"), match[0], data)
            try:
                data = map_paths(data, self.policy.uploads.real_path)
            except ValueError as error:
                raise _invalid("picture", UPLOAD_FIRST) from error
            return json.dumps(data).encode()
        return body

    def _check_call(self, name: str | None, request: str, body: dict[str, Any]) -> None:
        """Reject calls that would make Gradio fail with a traceback."""
        if "/stream/" in request:
            return
        functions = self.policy.page.fns
        if name is not None and "fn_index" not in body:
            found = [
                function
                for function in functions.values()
                if function.api_name == name and function.api_visibility != "private"
            ]
        else:
            index = body.get("fn_index")
            found = [functions[index]] if isinstance(index, int) and index in functions else []
        if not found:
            raise RefusedError(404, "Endpoint not found.")
        if "/call/v2/" in request:  # takes values by name
            names = list(inspect.signature(found[0].fn or list).parameters)
            if set(body) != set(names):
                raise RefusedError(422, f"Expected the fields {', '.join(names)}.")
            body = {"data": [body[name] for name in names]}
        data = body.get("data")
        inputs = found[0].inputs
        given = [block for block in inputs if not getattr(block, "skip_api", False)]
        if not isinstance(data, list):
            raise RefusedError(422, 'Expected {"data": [one value per input]}.')
        if len(data) == len(given):
            inputs = given
        if len(data) != len(inputs):
            raise RefusedError(
                422, f"Expected {count_of(len(given), 'input')} in data, got {len(data)}."
            )
        for block, value in zip(inputs, data, strict=True):
            label = str(getattr(block, "label", None) or "input")
            if isinstance(block, gr.Image | gr.File | gr.Video | gr.UploadButton):
                if not _is_file(value):
                    raise _invalid(label, UPLOAD_FIRST)
            elif isinstance(block, gr.Textbox) and not (value is None or isinstance(value, str)):
                raise _invalid(label, "expected a string")
            elif isinstance(block, gr.Slider) and not isinstance(value, int | float):
                raise _invalid(label, "expected a number")

    # ---- answers ----

    @contextmanager
    def _delivery(self, event: str) -> Iterator[None]:
        """Deliver an answer once and to one client; Gradio would keep others waiting forever."""
        # Not `event_ids_to_events`: it still has the event for a moment after the delivery.
        pending = self.policy.page._queue.pending_event_ids_session.items()
        session = next((session for session, events in pending if event in events), None)
        if session is None:
            raise RefusedError(404, "No such answer: it has already been fetched or has expired.")
        if event in self.policy.streams:
            raise RefusedError(409, "This answer is already being fetched.")
        self.policy.streams.add(event)
        try:
            with self._listener(session):
                yield
        finally:
            self.policy.streams.discard(event)

    async def _session(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page that listens for answers. If there is nothing to listen for, send Gradio's
        closing message immediately."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        session = query.get("session_hash", [""])[0]
        queue = self.policy.page._queue
        if session not in queue.pending_messages_per_session:
            message = {"msg": "unexpected_error", "message": "", "success": False}
            await _event({**message, "session_not_found": True})(scope, receive, send)
        elif not queue.pending_event_ids_session.get(session):
            await _event({"msg": "close_stream"})(scope, receive, send)
        else:
            with self._listener(session):
                await self.app(scope, receive, send)

    @contextmanager
    def _listener(self, session: str) -> Iterator[None]:
        listening = self.policy.listening
        listening[session] += 1
        try:
            yield
        finally:
            listening[session] -= 1
            if not listening[session]:
                del listening[session]

    def _hiding(self, send: Send) -> Send:
        """Wrap `send` to hide the upload folder's path in responses."""
        uploads = self.policy.uploads
        start: Message | None = None

        async def hiding(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _has_length(message):
                start = message  # held back until the body is known
                return
            if message["type"] == "http.response.body":
                body = message.get("body", b"")
                hidden = uploads.hide(body)
                message = {**message, "body": hidden}
                if start is not None:
                    await send(_longer(start, len(hidden) - len(body)))
                    start = None
            await send(message)

        return hiding


def _path(scope: Scope) -> str:
    """Return the request's path below the server's root path, as Starlette's router sees it."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return str(path[len(root) :])
    return str(path)


def _host_name(value: str, header: str) -> str:
    """Return the lower-case host name of a Host ("name:port") or Origin ("http://name:port")
    header; "" if it cannot be parsed."""
    try:
        return urlsplit(value if header == "origin" else f"//{value}").hostname or ""
    except ValueError:
        return ""


def _is_file(value: Any) -> bool:
    """Whether `value` may stand for a file, several files or no file."""
    if isinstance(value, list):
        return all(map(_is_file, value))
    if isinstance(value, dict):
        return isinstance(value.get("path", ""), str | type(None))
    return value is None


def _invalid(parameter: str, message: str) -> RefusedError:
    """Return a validation error in the format that Gradio's clients display."""
    detail = {"__type__": "validate", "is_valid": False, "message": message}
    return RefusedError(422, [{**detail, "parameter_name": parameter}])


def _counted(headers: Headers, receive: Receive, limit: int, seconds: float) -> Receive:
    """Wrap `receive` to limit the body in size and time, whatever length the headers declare."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise RefusedError(413, f"The body has {length} bytes; the limit is {limit} bytes.")
    received, end = 0, time.monotonic() + seconds

    async def counted() -> Message:
        nonlocal received
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except TimeoutError as error:
            raise RefusedError(408, f"The body took longer than {seconds:.0f} seconds.") from error
        received += len(message.get("body", b""))
        if received > limit:
            raise RefusedError(413, f"The body is too large; the limit is {limit} bytes.")
        return message

    return counted


async def _read(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Wrap `receive` to replay a body that has already been read."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _has_length(start: Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in start.get("headers", []))


def _longer(start: Message, by: int) -> Message:
    """Return the start of a response with its content length increased by `by` bytes."""
    headers = [
        (name, str(int(value) + by).encode() if name.lower() == b"content-length" else value)
        for name, value in start.get("headers", [])
    ]
    return {**start, "headers": headers}


def _event(message: dict[str, Any]) -> Response:
    """Return an event stream that consists of one message."""
    return Response(f"data: {json.dumps(message)}\n\n", media_type="text/event-stream")
