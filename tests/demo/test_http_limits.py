"""What the demo's server accepts over HTTP, with an application of one line behind it."""

import asyncio
import json
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.routes import App

from segmodels.demo import http_limits, quiet_logs
from segmodels.demo.file_sweeper import FileSweeper
from segmodels.demo.http_limits import HttpLimits, HttpPolicy
from segmodels.demo.uploads import UploadFolder
from tests.support import loops

# Routes that the page uses, as Gradio writes them; every other one is closed.
OPEN = {
    *("GET /", "HEAD /", "GET /config", "GET /config/", "GET /theme.css", "GET /robots.txt"),
    *("GET /favicon.ico", "GET /manifest.json", "GET /pwa_icon", "GET /pwa_icon/{size}"),
    *("GET /static/{path:path}", "GET /assets/{path:path}", "GET /svelte/{path:path}"),
    *("GET /gradio_api/theme.css", "GET /gradio_api/info", "GET /gradio_api/info/"),
    *("GET /gradio_api/openapi.json", "GET /gradio_api/app_id", "GET /gradio_api/app_id/"),
    *("GET /gradio_api/startup-events", "GET /gradio_api/queue/status"),
    *("GET /gradio_api/heartbeat/{session_hash}", "GET /gradio_api/upload_progress"),
    *("GET /gradio_api/queue/data", "GET /gradio_api/call/{api_name}/{event_id}"),
    "GET /gradio_api/call/v2/{api_name}/{event_id}",
    *("GET /gradio_api/file={path_or_url:path}", "HEAD /gradio_api/file={path_or_url:path}"),
    *("POST /gradio_api/upload", "POST /gradio_api/queue/join", "POST /gradio_api/cancel"),
    *("POST /gradio_api/reset", "POST /gradio_api/reset/"),
    *(
        f"POST /gradio_api/{kind}/{{api_name}}{end}"
        for kind in ("run", "api", "call", "call/v2")
        for end in ("", "/")
    ),
}
SAMPLES = {
    "api_name": "show",
    "event_id": "event",
    "path_or_url:path": "/files/a.png",
    "size": "192",
}


def in_loop(function):
    """What it returns, called in an event loop: outside of one, Gradio makes some that stay."""

    async def call():
        return function()

    return loops.run(call())


def small_page():
    with gr.Blocks() as page:
        image, text, button = gr.Image(label="picture"), gr.Textbox(label="name"), gr.Button()
        button.click(lambda picture, name: None, [image, text], None, api_name="show")
        button.click(lambda: None, None, None, api_name="hidden", api_visibility="private")
    page.run_history = True
    page.mcp_server = False
    return page


def live_page():
    with gr.Blocks() as page:
        image = gr.Image(streaming=True)
        image.stream(lambda image: image, image, image)
    page.mcp_server = True
    return page


@pytest.fixture(scope="module")
def page():
    return in_loop(small_page)


@pytest.fixture
def policy(page, tmp_path):
    sweeper = FileSweeper(tmp_path, 600)
    (tmp_path / "a.png").write_bytes(b"image")
    return HttpPolicy(page, UploadFolder(tmp_path), sweeper, max_upload=10_000_000)


class Client:
    """Sends requests through the limits to an application that answers with what it got."""

    def __init__(self, policy):
        self.policy = policy
        self.got = None  # the last request that came through
        self.failure = None  # that the application is to raise

    async def app(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.got = SimpleNamespace(path=scope["path"], body=body)
        if self.failure:
            raise self.failure
        answer = json.dumps({"path": f"{self.policy.uploads.folder}/b.png"}).encode()
        length = str(len(answer)).encode()
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    def __call__(self, request, *chunks, root="", **headers):
        """Status and JSON of the answer. chunks: of the body."""
        method, _, path = request.partition(" ")
        path, _, query = path.partition("?")
        messages = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ] + [{"type": "http.request", "body": b"", "more_body": False}]
        sent = []

        async def receive():
            message = messages.pop(0) if messages else {"type": "http.disconnect"}
            if message.get("body") == b"wait":
                await asyncio.sleep(60)
            return message

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root,
            "query_string": query.encode(),
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
        }
        self.got = None
        loops.run(HttpLimits(self.app, self.policy)(scope, receive, send))
        if not sent:
            return None, None
        body = b"".join(message.get("body", b"") for message in sent)
        length = dict(sent[0]["headers"])[b"content-length"]
        assert int(length) == len(body)
        text = body.decode()
        return sent[0]["status"], json.loads(text) if text.startswith(("{", "[")) else text

    def call(self, data, name="show"):
        return self(f"POST /gradio_api/call/{name}", json.dumps({"data": data}).encode())


@pytest.fixture
def client(policy):
    return Client(policy)


def all_routes(page):
    """Every route of Gradio's application, "GET /config" for example."""

    def walk(routes):
        for route in routes:
            if hasattr(route, "original_router"):
                yield from walk(route.original_router.routes)
            elif getattr(route, "methods", None):
                yield from (f"{method} {route.path}" for method in route.methods)
            else:
                yield f"GET {route.path}"

    app = in_loop(lambda: App.create_app(page, mcp_server=False))
    return sorted(set(walk(app.routes)))


@pytest.mark.parametrize("root", ["", "/seg"])
def test_of_all_routes_of_gradio_those_on_the_list_are_open_in_both_forms(page, policy, root):
    routes = all_routes(page)
    assert len(routes) > 50
    assert set(routes) >= OPEN
    queue = page._queue
    queue.pending_event_ids_session["id"] = {"event"}
    queue.pending_messages_per_session["id"] = object()
    client = Client(policy)
    try:
        for route in routes:
            path = re.sub(r"\{([^}]+)\}", lambda found: SAMPLES.get(found[1], "id"), route)
            method, _, path = path.partition(" ")
            path += "?session_hash=id" if path.endswith("queue/data") else ""
            for prefix in {"", root}:
                body = b'{"fn_index": 0, "data": [null, "a"]}' if method == "POST" else b""
                body = b'{"picture": null, "name": "a"}' if "/call/v2" in path and body else body
                status, _ = client(f"{method} {prefix}{path}", body, root=root)
                assert (status == 200, client.got is not None) == (route in OPEN,) * 2, route
    finally:
        queue.pending_event_ids_session.clear()
        queue.pending_messages_per_session.clear()


@pytest.mark.parametrize("root", ["", "/seg"])
@pytest.mark.parametrize(
    "path",
    [
        *("/monitoring", "/gradio_api/file/http://example.com/", "/gradio_api/file=http://a.b/c"),
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py", "/seg/seg/config", "//config"),
        *("/gradio_api/file=/files/../a.png", "/gradio_api/file=/files/b.png", "/config/../config"),
        *("/gradio_api/proxy=https://a.hf.space/", "/gradio_api/deep_link", "/pwa_icon/30000"),
        *("/GRADIO_API/info", "/gradio_api/info\n", "/segments/config", "/login", "/docs"),
    ],
)
def test_what_is_not_on_the_list_is_not_found(client, root, path):
    for prefix in {"", root}:
        status, answer = client(f"GET {prefix}{path}", root=root)
        assert (status, client.got) == (404, None)
        assert "Not found" in answer["detail"] or "File not found" in answer["detail"]


def test_routes_of_live_streams_and_of_mcp_are_open_where_the_page_has_them(page, policy):
    request = "POST /gradio_api/stream/event"
    assert Client(policy)(request)[0] == 404
    assert Client(policy)("GET /gradio_api/mcp/schema")[0] == 404
    client = Client(HttpPolicy(in_loop(live_page), policy.uploads, policy.sweeper, 10))
    assert client(request, b'{"data": []}')[0] == 200
    assert client("GET /gradio_api/mcp/schema")[0] == 200


def test_methods_that_no_route_has_and_web_sockets_are_refused(client):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"):
        assert client(f"{method} /config")[0] == 404
    sent = []

    async def send(message):
        sent.append(message)

    loops.run(HttpLimits(client.app, client.policy)({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close"}]


# ---- bodies ----


@pytest.mark.parametrize("root", ["", "/seg"])
@pytest.mark.parametrize(
    "route",
    [
        *("POST /gradio_api/queue/join", "POST /gradio_api/call/show", "POST /gradio_api/run/show"),
        *("POST /gradio_api/cancel", "POST /gradio_api/reset", "GET /config", "GET /"),
        *("GET /gradio_api/heartbeat/id", "HEAD /", "GET /theme.css", "GET /assets/index.js"),
    ],
)
def test_a_body_has_one_megabyte_on_every_route_whatever_length_it_claims(client, route, root):
    method, _, path = route.partition(" ")
    chunks = [bytes(100_000)] * 11
    for headers in ({}, {"content_length": "5"}, {"transfer_encoding": "chunked"}):
        status, answer = client(f"{method} {root}{path}", *chunks, root=root, **headers)
        assert (status, client.got) == (413, None)
        assert "limit is 1000000" in answer["detail"]
    status, _ = client(f"{method} {root}{path}", root=root, content_length="1000001")
    assert (status, client.got) == (413, None)


@pytest.mark.parametrize("root", ["", "/seg"])
def test_an_upload_has_its_own_limit(client, root):
    assert client(f"POST {root}/gradio_api/upload", *[bytes(1_000_000)] * 11, root=root)[0] == 200
    status, answer = client(f"POST {root}/gradio_api/upload", *[bytes(1_000_000)] * 12, root=root)
    assert (status, answer["detail"][:9]) == (413, "The body ")


def test_a_body_that_comes_too_slowly_is_cut_off(client, monkeypatch):
    monkeypatch.setattr(http_limits, "JSON_SECONDS", 0.05)
    monkeypatch.setattr(http_limits, "UPLOAD_SECONDS", 0.05)
    for path in ("call/show", "upload", "cancel"):
        assert client(f"POST /gradio_api/{path}", b"{", b"wait")[0] == 408


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'"text"', b"\xff", b"1"])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    for path in ("queue/join", "call/show", "run/show", "cancel", "reset"):
        status, answer = client(f"POST /gradio_api/{path}", body)
        assert (status, answer) == (400, {"detail": "The body is not a JSON object."})


# ---- calls ----


def test_a_call_comes_through_with_paths_of_the_disk(client):
    assert client.call([{"path": "/files/a.png"}, "a"])[0] == 200
    folder = client.policy.uploads.folder
    assert json.loads(client.got.body) == {"data": [{"path": f"{folder}/a.png"}, "a"]}


def test_answers_have_the_alias_in_place_of_the_folder(client):
    assert client("GET /config") == (200, {"path": "/files/b.png"})


@pytest.mark.parametrize(
    "value",
    [
        *("https://a.b/c.png", "data:image/png;base64,iVBORw0KGgo=", "a.png", 5, True, [1]),
        *({"path": "https://a.b/c.png"}, {"path": "/etc/passwd"}, {"path": "a.png"}, {"path": 5}),
        *({"path": "file:///etc/passwd"}, {"path": "/files/../../etc/passwd"}, {"path": ""}),
        {"deep": [{"path": "/etc/passwd"}]},
    ],
)
def test_what_is_no_uploaded_file_is_refused_with_what_is_accepted(client, value):
    status, answer = client.call([value, "a"])
    assert (status, client.got) == (422, None)
    (problem,) = answer["detail"]
    assert problem["parameter_name"] == "picture"
    assert "POST /gradio_api/upload" in problem["message"]
    assert "does not fetch anything" in problem["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [([], 422), ([None], 422), ([None, "a", 1], 422), ({}, 422), (None, 422), ([None, 5], 422)],
)
def test_inputs_that_gradio_would_stumble_over_are_refused(client, data, status):
    assert client.call(data)[0] == status
    assert client.got is None


@pytest.mark.parametrize(
    "body", [{}, {"data": [None, "a"]}, {"picture": None}, {"picture": "x", "name": "a"}]
)
def test_values_by_name_are_checked_too(client, body):
    request = "POST /gradio_api/call/v2/show"
    assert client(request, json.dumps(body).encode())[0] == 422
    assert client(request, b'{"picture": null, "name": "a"}')[0] == 200


def test_endpoints_that_are_not_there_or_not_public_are_not_found(client):
    for name in ("none", "hidden"):
        assert client.call([None, "a"], name)[0] == 404
    for body in (b'{"fn_index": 99, "data": []}', b'{"fn_index": "a", "data": []}', b"{}"):
        assert client("POST /gradio_api/queue/join", body)[0] == 404


def test_a_server_that_stops_accepts_no_calls(client):
    client.policy.stopping = True
    for path in ("upload", "call/show", "queue/join"):
        status, answer = client(f"POST /gradio_api/{path}", b"{}")
        assert (status, "stopping" in answer["detail"]) == (503, True)
    assert client("GET /config")[0] == 200


# ---- answers ----


def test_an_answer_is_given_once_to_one_client(client, page):
    request = "GET /gradio_api/call/show/event"
    page._queue.event_ids_to_events["event"] = SimpleNamespace(session_hash="session")
    status, answer = client(request)  # it has just been delivered
    assert (status, "has already been fetched" in answer["detail"]) == (404, True)
    page._queue.pending_event_ids_session["session"] = {"event"}
    try:
        assert client(request)[0] == 200
        client.policy.streams.add("event")
        assert client(request)[0] == 409
    finally:
        page._queue.event_ids_to_events.clear()
        page._queue.pending_event_ids_session.clear()
        client.policy.streams.clear()


def test_a_session_with_nothing_to_deliver_ends(client, page):
    assert "session_not_found" in client("GET /gradio_api/queue/data?session_hash=a")[1]
    assert "session_not_found" in client("GET /gradio_api/queue/data")[1]
    page._queue.pending_messages_per_session["a"] = object()
    try:
        assert "close_stream" in client("GET /gradio_api/queue/data?session_hash=a")[1]
    finally:
        page._queue.pending_messages_per_session.clear()


# ---- failures ----


def test_a_disk_that_is_full_or_cannot_be_written_is_told_and_then_recovers(client, caplog):
    for number, status in ((28, 507), (30, 503), (13, 503)):
        client.failure = OSError(number, "no", "/secret/folder")
        assert client("POST /gradio_api/upload")[0] == status
    assert "secret" not in caplog.text
    client.failure = None
    assert client("POST /gradio_api/upload")[0] == 200


def test_an_upload_is_refused_before_the_disk_is_full(client, monkeypatch):
    monkeypatch.setattr(UploadFolder, "has_space", lambda self, size: False)
    assert client("POST /gradio_api/upload")[0] == 507
    assert client.got is None
    monkeypatch.setattr(UploadFolder, "has_space", lambda self, size: True)
    monkeypatch.setattr(http_limits, "MAX_STORED", 4)
    status, answer = client("POST /gradio_api/upload")
    assert (status, "Too many images" in answer["detail"]) == (503, True)


def test_a_failure_is_logged_without_the_visitors_text(client, caplog):
    client.failure = RuntimeError("what a visitor wrote")
    status, answer = client("GET /config")
    assert (status, answer) == (500, {"detail": "The server failed to process this request."})
    assert "RuntimeError" in caplog.text
    assert "test_http_limits.py" in caplog.text  # where it was raised
    assert "what a visitor wrote" not in caplog.text


def test_of_gradios_tracebacks_those_of_the_visitors_input_are_not_logged(caplog):
    from gradio import queueing

    quiet_logs.install()

    def raised(error):
        try:
            raise error
        except Exception:
            queueing.traceback.print_exc()

    raised(gr.Error("refused"))
    assert caplog.text == ""
    raised(RuntimeError("a visitor's text"))
    assert "RuntimeError" in caplog.text
    assert "visitor" not in caplog.text


# ---- hosts ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:7860"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "LOCALHOST:80", "origin": "http://localhost:7860"}, 200),
        ({"host": "rebound.example:7860"}, 403),
        ({"host": "127.0.0.1.example"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://localhost.evil.example"}, 403),
        ({"host": "[broken", "x_forwarded_host": "localhost"}, 403),
    ],
)
def test_a_server_for_this_machine_answers_this_machine_alone(client, headers, status):
    client.policy.hosts = ("localhost", "127.0.0.1", "::1")
    assert client("GET /", **headers)[0] == status
    client.policy.hosts = None
    assert client("GET /", **headers)[0] == 200
