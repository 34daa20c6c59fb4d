"""What the page's server accepts over HTTP: the routes, the hosts, the size and the time of a body.

`HttpLimits` is ASGI middleware between the world and Gradio. Gradio has more routes than the page
uses (it fetches addresses, edits the app, shows its monitoring); those that are not in `ROUTES` do
not exist here.
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

log = logging.getLogger(__name__)

MAX_JSON = 1_000_000  # bytes of a call; its picture is uploaded before
MAX_STORED = 4_000_000_000  # bytes of uploads and results that lie there at once
JSON_SECONDS = 20.0  # for the body of a call to arrive
UPLOAD_SECONDS = 300.0  # for an upload
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
# Only where the page uses them: live pictures of a camera, and tools of an MCP server.
STREAM_ROUTES = {"call": rf"POST /gradio_api/stream/{_NAME}(/close)?"}
MCP_ROUTES = {"mcp": r"(GET|POST|DELETE) /gradio_api/mcp(/(http/?|sse/?|messages/?|schema)?)?"}
UPLOAD_FIRST = (
    "give the picture itself: upload the file with POST /gradio_api/upload and pass "
    '{"path": "<the path that it answers>", "meta": {"_type": "gradio.FileData"}}. Base64 data and '
    "addresses are not accepted: this server fetches nothing"
)


class RefusedError(Exception):
    """A request that is answered with a status and a sentence, which is nobody's fault here."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status)
        self.response = JSONResponse({"detail": detail}, status)


@dataclass
class HttpPolicy:
    """What the limits of a server are.

    Attributes:
        page: The page that is served.
        uploads: Its folder of uploads and results.
        sweeper: Knows how much lies there.
        max_upload: Bytes of one upload.
        hosts: Names that requests may be addressed to; None for every one.
        stopping: Whether nothing new is accepted.
        streams: Answers that are being delivered, by event.
        listening: How many clients listen for the answers of a session.
        loop: The server's event loop, once it runs.
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
        """The kinds of the routes that the page uses, each with its pattern."""
        routes = list(ROUTES.items())
        if any(function.connection == "stream" for function in self.page.fns.values()):
            routes += STREAM_ROUTES.items()
        if self.page.mcp_server:
            routes += MCP_ROUTES.items()
        return [(kind, re.compile(pattern)) for kind, pattern in routes]


class HttpLimits:
    """ASGI middleware that refuses what `HttpPolicy` does not allow, and answers failures in words.

    Args:
        app: Gradio's application.
        policy: The limits.
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
        else:  # no route of Gradio's is a web socket
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever happens, the client gets a status and a sentence."""
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
                failed = RefusedError(500, "The server failed on this request.")
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
            log.warning("an upload could not be stored: %s", error.strerror)
            raise RefusedError(*storage_problem(error)) from error

    def _route(self, method: str, path: str) -> tuple[str, re.Match[str]]:
        request = f"{'GET' if method == 'HEAD' else method} {path}"
        for kind, pattern in self.routes:
            if match := pattern.fullmatch(request):
                return kind, match
        raise RefusedError(404, "Not found")

    def _check_host(self, headers: Headers) -> None:
        """Against DNS rebinding and other sites' pages, where only this machine is to be served."""
        allowed = self.policy.hosts
        if allowed is None:
            return
        for name in ("host", "origin"):
            value = headers.get(name)
            if value is not None and _host_name(value, name) not in allowed:
                raise RefusedError(
                    403,
                    f"The {name} of this request is not this machine. Behind a proxy, start the "
                    f"server with {HOSTS_VARIABLE} set to the names that it is reached by.",
                )

    def _check_space(self) -> None:
        policy = self.policy
        policy.uploads.folder.mkdir(parents=True, exist_ok=True)
        if policy.sweeper.stored_bytes() > MAX_STORED:
            raise RefusedError(503, "Too many images are stored; try again in some minutes.")
        if not policy.uploads.has_space(policy.max_upload):
            raise OSError(errno.ENOSPC, "no space left")

    def _file_scope(self, scope: Scope, path: str) -> Scope:
        """The request of a file, with the file's path on disk."""
        route, _, name = path.partition("=")
        real = self.policy.uploads.real_path(name)
        if real is None or not Path(real).is_file():
            raise RefusedError(
                404, "There is no such file; files are deleted some minutes after use."
            )
        return {**scope, "path": f"{scope.get('root_path', '')}{route}={real}"}

    # ---- calls ----

    def _checked_body(self, kind: str, match: re.Match[str], body: bytes) -> bytes:
        """The body of a POST, which must be JSON, with its paths mapped to those on disk."""
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
        """Refuse what Gradio would answer with a traceback."""
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
            raise RefusedError(404, "There is no such endpoint.")
        if "/call/v2/" in request:  # its values are given by name
            names = list(inspect.signature(found[0].fn or list).parameters)
            if set(body) != set(names):
                raise RefusedError(422, f"Expected the fields {', '.join(names)}.")
            body = {"data": [body[name] for name in names]}
        data = body.get("data")
        inputs = found[0].inputs
        given = [block for block in inputs if not getattr(block, "skip_api", False)]
        if not isinstance(data, list):
            raise RefusedError(422, 'Expected {"data": [one value for each input]}.')
        if len(data) == len(given):
            inputs = given
        if len(data) != len(inputs):
            raise RefusedError(422, f"Expected {len(given)} inputs in data, got {len(data)}.")
        for block, value in zip(inputs, data, strict=True):
            label = str(getattr(block, "label", None) or "input")
            if isinstance(block, gr.Image | gr.File | gr.Video | gr.UploadButton):
                if not _is_file(value):
                    raise _invalid(label, UPLOAD_FIRST)
            elif isinstance(block, gr.Textbox) and not (value is None or isinstance(value, str)):
                raise _invalid(label, "expected a text")
            elif isinstance(block, gr.Slider) and not isinstance(value, int | float):
                raise _invalid(label, "expected a number")

    # ---- answers ----

    @contextmanager
    def _delivery(self, event: str) -> Iterator[None]:
        """An answer is delivered once, to one client: Gradio would let others wait forever."""
        # An event stays in `event_ids_to_events` for a moment after its answer has been delivered.
        pending = self.policy.page._queue.pending_event_ids_session.items()
        session = next((session for session, events in pending if event in events), None)
        if session is None:
            raise RefusedError(404, "There is no such answer: it has been fetched, or has expired.")
        if event in self.policy.streams:
            raise RefusedError(409, "This answer is being fetched already.")
        self.policy.streams.add(event)
        try:
            with self._listener(session):
                yield
        finally:
            self.policy.streams.discard(event)

    async def _session(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page that listens; at once the message of Gradio's that ends it where there is nothing
        to listen for."""
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
        """Sends responses without the upload folder's path."""
        uploads = self.policy.uploads
        start: Message | None = None

        async def hiding(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _has_length(message):
                start = message  # to be sent when the body is known
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
    """The request's path below the server's root path, as Starlette's router reads it."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return str(path[len(root) :])
    return str(path)


def _host_name(value: str, header: str) -> str:
    """Of a Host ("name:port") or an Origin ("http://name:port"), in lower case; "" for neither."""
    try:
        return urlsplit(value if header == "origin" else f"//{value}").hostname or ""
    except ValueError:
        return ""


def _is_file(value: Any) -> bool:
    """Whether this may be a file, several files, or none."""
    if isinstance(value, list):
        return all(map(_is_file, value))
    if isinstance(value, dict):
        return isinstance(value.get("path", ""), str | type(None))
    return value is None


def _invalid(parameter: str, message: str) -> RefusedError:
    """In the form that Gradio's clients show."""
    detail = {"__type__": "validate", "is_valid": False, "message": message}
    return RefusedError(422, [{**detail, "parameter_name": parameter}])


def _counted(headers: Headers, receive: Receive, limit: int, seconds: float) -> Receive:
    """The body, cut off at the limit of bytes and of time, whatever length it is said to have."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise RefusedError(413, f"{length} bytes are too many; at most {limit} are accepted.")
    received, end = 0, time.monotonic() + seconds

    async def counted() -> Message:
        nonlocal received
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except TimeoutError as error:
            raise RefusedError(408, f"The body took more than {seconds:.0f} seconds.") from error
        received += len(message.get("body", b""))
        if received > limit:
            raise RefusedError(413, f"The body has too many bytes; at most {limit} are accepted.")
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
    """A body that was read, to be received once more."""
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
    """The start of a response whose body has grown."""
    headers = [
        (name, str(int(value) + by).encode() if name.lower() == b"content-length" else value)
        for name, value in start.get("headers", [])
    ]
    return {**start, "headers": headers}


def _event(message: dict[str, Any]) -> Response:
    """A stream of one message."""
    return Response(f"data: {json.dumps(message)}\n\n", media_type="text/event-stream")
