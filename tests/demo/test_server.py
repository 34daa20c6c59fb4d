"""The demo in a process of its own: many clients at once, limits, upkeep, graceful shutdown."""

import io
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from segmodels.demo import server
from tests.load.soak import known_answers, memory_of, soak
from tests.support.server import (
    GATED,
    PATIENCE,
    SWEPT,
    QueueFullError,
    RefusedError,
    Visitor,
    picture,
    png,
    running,
    upload_folder,
    write_networks,
)

NETWORK = "unet-camvid"
# Names are looked up, and connections made, nowhere but here.
OFFLINE = """
import sys
def audit(event, arguments):
    if event == "socket.getaddrinfo" or event == "socket.connect":
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("ASKED", host, flush=True)
sys.addaudithook(audit)
"""
# The server says when it sees that a client has left.
LEFT = """
from gradio.queueing import Queue
clean = Queue.clean_events
async def told(self, *arguments, **options):
    await clean(self, *arguments, **options)
    print("* LEFT", flush=True)
Queue.clean_events = told
"""
# The machine is so busy that Gradio does not get the first page in time.
BUSY = """
from gradio import networking
networking.url_ok = lambda url: False
"""
# The server waits for clients that a busy machine makes slow.
PATIENT = """
from segmodels.demo import server
server.DRAIN_SECONDS = server.FETCH_SECONDS = server.HEADER_SECONDS = 600
server.LINGER_SECONDS = 5
server.serve.__kwdefaults__["kept_seconds"] = 6000
"""
# Writing uploads fails while a file called "broken" lies in the folder above.
BROKEN = """
import errno, os, pathlib
from gradio import route_utils
from starlette.datastructures import UploadFile
write = UploadFile.write
async def broken(self, data):
    await write(self, data[: len(data) // 2])
    flag = pathlib.Path(os.environ["GRADIO_TEMP_DIR"]).parents[1] / "broken"
    if flag.exists():
        raise OSError(int(flag.read_text()), "broken")
    await write(self, data[len(data) // 2 :])
UploadFile.write = broken
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_networks(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def answers(models):
    return known_answers(models)


@pytest.fixture(scope="module")
def demo(models, tmp_path_factory):
    """Address, process and folder of a demo that all tests but those of its end share. It is served
    below /seg too, and has two networks of one name."""
    folder, parent = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("two")
    for name in ("orgA", "orgB"):
        shutil.copytree(models.split(",")[1], parent / name / "net")
        models += f",{parent / name / 'net'}"
    (folder / "segmodels-99999999-killed").mkdir()  # what a killed process left: no id is so high
    (folder / "segmodels-cache-x").mkdir()  # somebody else's
    prelude = OFFLINE + BROKEN + GATED + LEFT + BUSY + PATIENT
    with running(models, folder, prelude=prelude, GRADIO_ROOT_PATH="/seg") as (address, process):
        yield address, process, folder


@pytest.fixture
def address(demo):
    return demo[0]


@pytest.fixture
def visitor(address):
    with Visitor(address) as visitor:
        yield visitor


def files_in(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


# ---- many at once ----


def test_twenty_programs_at_once_get_each_its_own_answer(address, answers, tmp_path):
    def work(number):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(picture(number)))
        client = Client(
            address,
            verbose=False,
            download_files=tmp_path / str(number),
            httpx_kwargs={"timeout": PATIENCE},
        )
        found = client.predict(handle_file(path), NETWORK, api_name="/segment")
        with Image.open(found) as ids:
            return np.array_equal(np.array(ids), answers[NETWORK, number])

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(work, range(20)))


def test_under_load_nothing_is_lost_and_nobody_gets_anothers_answer(demo, answers):
    address, process, _ = demo
    before = memory_of(process)
    report = soak(address, answers, clients=50, seconds=2)
    assert report.problems == []
    assert report.counts["served"] >= 5
    assert report.counts["refused"] >= 1
    assert memory_of(process) - before < 300_000_000


@contextmanager
def occupied(visitor, folder, places):
    """A call that runs for as long as this context lasts, and so many calls waiting behind it."""
    log = folder / "log.txt"
    path, before = visitor.upload(png(picture(1))), log.read_text().count("SEGMENTS")
    (folder / "closed").touch()
    try:
        running = visitor.call("segment", path, NETWORK)
        wait_until(lambda: log.read_text().count("SEGMENTS") > before)
        yield running, [visitor.call("segment", path, NETWORK) for _ in range(places)]
    finally:
        (folder / "closed").unlink()


def test_a_full_queue_says_so_and_those_in_it_are_served_in_order(demo, visitor):
    address, _, folder = demo
    path = visitor.upload(png(picture(2)))
    with (
        occupied(visitor, folder, 20) as (slow, waiting),
        pytest.raises(QueueFullError, match=r"Queue is full"),
    ):
        visitor.call("segment", path, NETWORK)
    finished = []

    def wait(event):
        with Visitor(address) as other:
            other.answer("segment", event)
        finished.append(event)

    threads = [threading.Thread(target=wait, args=(event,)) for event in [slow, *waiting]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What is done within a moment may be told out of turn.
    places = [finished.index(event) for event in [slow, *waiting]]
    assert max(abs(place - turn) for turn, place in enumerate(places)) <= 4


def test_a_client_that_leaves_frees_its_place(demo, visitor):
    address, _, folder = demo
    path = visitor.upload(png(picture(3)))
    with occupied(visitor, folder, 20) as (slow, waiting):
        with (
            Visitor(address) as leaving,
            leaving.http.stream("GET", f"/call/segment/{waiting[10]}") as stream,
        ):
            assert stream.status_code == 200
        events = []

        def has_a_place():
            with suppress(QueueFullError):
                events.append(visitor.call("segment", path, NETWORK))
            return events

        wait_until(has_a_place)
    assert visitor.answer("segment", events[0])
    for other in (slow, waiting[9], waiting[11]):
        assert visitor.answer("segment", other)


def test_bad_pictures_get_a_word_and_good_ones_after_them_their_answer(visitor, answers):
    for content, message in (
        (b"no picture", "is not an image"),
        (png(picture(4))[:300], "damaged, truncated"),
        (b"", "empty"),
        (huge_png(), "900.0 megapixels; at most 50.0 are accepted"),
    ):
        with pytest.raises(RefusedError, match=message):
            visitor.segment(content, NETWORK)
    assert np.array_equal(visitor.segment(png(picture(4)), NETWORK), answers[NETWORK, 4])


def huge_png():
    """30000 x 30000 pixels of one colour in less than a megabyte."""
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    return file.getvalue()


def test_a_line_of_many_pixels_takes_no_longer_than_a_square_of_as_many(visitor):
    file = io.BytesIO()
    Image.new("L", (20_000, 1), 99).save(file, "PNG")
    assert visitor.segment(file.getvalue(), NETWORK).shape == (1, 20_000)


# ---- routes and files ----


@pytest.mark.parametrize("prefix", ["", "/seg"])
def test_below_a_root_path_the_limits_are_the_same_in_both_forms(demo, prefix):
    address, _, folder = demo
    with httpx.Client(base_url=address + prefix, timeout=PATIENCE) as http:
        for path in (
            *("/monitoring", "/monitoring/summary", "/gradio_api/dev/reload", "/openapi.json"),
            *("/gradio_api/file=https://example.com/", "/gradio_api/file/http://example.com/"),
            *("/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py", "/gradio_api/runs"),
            *("/gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fapp.py"),
        ):
            assert http.get(path).status_code in (403, 404), path
        for path in ("/", "/config", "/gradio_api/info", "/theme.css"):
            assert http.get(path).status_code == 200, path
        chunks = (bytes(100_000) for _ in range(30))
        assert http.post("/gradio_api/call/segment", content=chunks).status_code == 413
        upload = http.post("/gradio_api/upload", files={"files": ("a.png", bytes(31_500_000))})
        assert upload.status_code == 413
        path = http.post("/gradio_api/upload", files={"files": ("a.png", png(picture(1)))}).json()[
            0
        ]
        body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, NETWORK]}
        event = http.post("/gradio_api/call/segment", json=body).json()["event_id"]
        assert "event: complete" in http.get(f"/gradio_api/call/segment/{event}").text
    assert str(folder) not in httpx.get(f"{address}{prefix}/config").text


def test_files_of_the_server_are_neither_read_nor_listed(demo, visitor, models):
    _, _, folder = demo
    weights = f"{models.split(',')[0]}/model.safetensors"
    uploads = upload_folder(folder)
    for path in (weights, uploads, folder, folder / "log.txt", "/files", "/files/../../log.txt"):
        assert visitor.http.get(f"/file={path}").status_code in (403, 404), path
    for path in ("/etc/passwd", "app.py", weights, "/files/../../log.txt", "file:///etc/passwd"):
        with pytest.raises(RefusedError, match="upload the file with POST"):
            visitor.call("segment", str(path), NETWORK)


def test_no_response_has_a_path_of_the_server(demo, visitor, address):
    folder = str(demo[2])
    path = visitor.upload(png(picture(8)))
    result = visitor.answer("segment", visitor.call("segment", path, NETWORK))
    texts = [path, str(result)]
    for page in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json"):
        texts.append(httpx.get(address + page).text)
    with pytest.raises(RefusedError) as refused:
        visitor.segment(b"no picture", NETWORK)
    texts.append(str(refused.value))
    for text in texts:
        assert folder not in text
        assert "segmodels-" not in text


def test_the_folder_is_for_the_server_alone_and_only_a_killed_ones_is_gone(demo):
    _, process, parent = demo
    folder, other = sorted(parent.glob("segmodels-*"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.name.startswith(f"segmodels-{process.pid}-")
    assert other.name == "segmodels-cache-x"


def test_nothing_is_looked_up_or_asked_at_start(demo):
    assert "ASKED" not in (demo[2] / "log.txt").read_text()


def test_other_sites_cannot_use_a_server_on_this_machine(address):
    headers = [
        {"Host": "rebound.example"},
        {"Origin": "https://evil.example"},
        {"Host": "127.0.0.1.evil.example:7860"},
    ]
    for header in headers:
        assert httpx.get(f"{address}/config", headers=header).status_code == 403
        upload = httpx.post(f"{address}/gradio_api/upload", content=b"x", headers=header)
        assert upload.status_code == 403
    assert httpx.get(f"{address}/config", headers={"Origin": address}).status_code == 200


def test_the_queue_cannot_be_passed_by(address):
    answer = httpx.post(f"{address}/gradio_api/run/segment", json={"data": [None, NETWORK]})
    assert answer.status_code == 404
    assert "join the queue" in answer.text


def test_nothing_is_fetched_from_other_addresses(visitor, address):
    hits = []

    class Inside(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Inside) as inside:
        threading.Thread(target=inside.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{inside.server_port}/secret.png"
        with pytest.raises(RefusedError, match="does not fetch anything"):
            visitor.call("segment", url, NETWORK)
        for path in (url, "https://huggingface.co/front.png"):
            with pytest.raises(ValidationError, match="upload the file with POST"):
                Client(address, verbose=False).predict(
                    {"path": path, "meta": {"_type": "gradio.FileData"}},
                    NETWORK,
                    api_name="/segment",
                )
        for route in ("/file=", "/file/", "/proxy="):
            assert visitor.http.get(route + url).status_code == 404
        # The address beside an uploaded picture is not followed, nor one without a picture.
        file = {"path": visitor.upload(png(picture(5))), "url": url, "orig_name": url}
        assert asked(visitor, {**file, "meta": {"_type": "gradio.FileData"}})
        with pytest.raises(RefusedError, match="The picture is missing"):
            asked(visitor, {"url": url, "meta": {"_type": "gradio.FileData"}})
        inside.shutdown()
    assert hits == []


def asked(visitor, image):
    body = {"data": [image, NETWORK]}
    event = visitor.http.post("/call/segment", json=body).json()["event_id"]
    return visitor.answer("segment", event)


@pytest.mark.parametrize(
    "image", [None, {}, {"url": "data:image/png;base64,iVBORw0KGgo="}, {"path": None}]
)
def test_a_call_without_an_uploaded_picture_is_told_what_is_accepted(visitor, image):
    with pytest.raises(RefusedError, match=r"upload the file with POST /gradio_api/upload"):
        asked(visitor, image)


def test_a_fetched_answer_is_not_waited_for_again(visitor):
    event = visitor.call("segment", visitor.upload(png(picture(9))), NETWORK)
    assert visitor.answer("segment", event)
    again = visitor.http.get(f"/call/segment/{event}", timeout=10)
    assert (again.status_code, "has already been fetched" in again.text) == (404, True)


def test_two_networks_of_one_name_are_told_apart(visitor):
    assert list(visitor.compare(png(picture(1)), "own")["models"]) == ["orgA/net", "orgB/net"]
    for name in ("orgA/net", "orgB/net"):
        assert visitor.segment(png(picture(1)), name).shape == picture(1).shape[:2]


# ---- disk ----


@pytest.mark.parametrize(("number", "status"), [(28, 507), (30, 503)])
def test_a_full_or_read_only_disk_is_told_leaves_nothing_and_recovers(
    demo, visitor, number, status
):
    folder = demo[2]
    before = files_in(upload_folder(folder))
    (folder / "broken").write_text(str(number))
    try:
        answer = visitor.http.post("/upload", files={"files": ("a.png", bytes(100_000))})
    finally:
        (folder / "broken").unlink()
    assert answer.status_code == status
    assert "try again" in answer.json()["detail"]
    assert files_in(upload_folder(folder)) == before
    assert visitor.segment(png(picture(4)), NETWORK).shape == picture(4).shape[:2]


# ---- limits ----


def test_uploads_have_a_limit_whatever_length_they_claim(demo, visitor):
    before = files_in(demo[2])
    for size in (30_500_000, 33_000_000):
        with pytest.raises(RefusedError, match=r"exceeded|the limit is"):
            visitor.upload(bytes(size))
    many = [("files", (f"{number}.png", bytes(10_000_000))) for number in range(4)]
    assert visitor.http.post("/upload", files=many).status_code == 413

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(1_000_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = visitor.http.post("/upload", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert files_in(demo[2]) == before


def test_an_upload_that_is_cut_off_leaves_nothing(demo):
    address, _, folder = demo
    before = files_in(folder)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: "
            b'form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(2_000_000)
        )
        time.sleep(0.5)
    wait_until(lambda: files_in(folder) == before)


@pytest.mark.parametrize(
    ("content", "status"), [(b" " * 1_500_000, 413), (b"{", 400), (b"[" * 100_000, 400)]
)
def test_a_call_that_is_too_long_or_no_json_is_refused(visitor, content, status):
    for path in ("/queue/join", "/call/segment"):
        answer = visitor.http.post(path, content=content, headers={"content-type": "text/json"})
        assert answer.status_code == status


# ---- logs ----


def test_refusals_leavers_and_malformed_requests_leave_no_trace_in_the_log(demo, visitor, address):
    log = demo[2] / "log.txt"

    def lines():
        return [line for line in log.read_text().splitlines() if not line.startswith("* ")]

    before = lines()
    secret = "a-visitors-own-words"
    for content in (b"no picture", png(picture(0))[:200], b""):
        with pytest.raises(RefusedError):
            visitor.segment(content, NETWORK)
    with pytest.raises(RefusedError, match=secret):
        visitor.answer("segment", visitor.call("segment", visitor.upload(b"x", secret), secret))
    for body in ({}, {"data": secret}, {"data": [secret, secret]}, {"data": [None, 5]}):
        assert visitor.http.post("/call/segment", json=body).status_code == 422
    join = {"fn_index": 0, "session_hash": secret, "data": [secret] * 30}
    assert visitor.http.post("/queue/join", json=join).status_code in (404, 422)
    assert visitor.http.get("/upload_progress", params={"upload_id": secret}).status_code == 404
    form = {"files": ("a.png", png(picture(1)))}
    assert visitor.http.post("/upload?upload_id=1", files=form).status_code == 200
    with visitor.http.stream("GET", "/upload_progress?upload_id=1") as stream:
        assert "done" in "".join(stream.iter_text())
    fields = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (b"", b"--x", b"--x\r\n\r\n--x--", b"no form"):
        status = visitor.http.post("/upload", content=content, headers=fields).status_code
        assert status in (200, 400)
    assert visitor.http.post("/upload", content=b"text").status_code == 400
    with (
        occupied(visitor, demo[2], 0) as (event, _),
        visitor.http.stream("GET", f"/call/segment/{event}"),
    ):
        left = log.read_text().count("LEFT")
    wait_until(lambda: log.read_text().count("LEFT") > left)
    host, port = address.removeprefix("http://").split(":")
    for raw in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /gradio_api/upload HT"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(raw)
    assert visitor.segment(png(picture(4)), NETWORK).shape == picture(4).shape[:2]
    assert lines() == before


# ---- its end, and its upkeep ----


def test_an_abandoned_comparison_stops_at_the_next_network(demo, visitor):
    _, _, folder = demo

    def count(word):
        return (folder / "log.txt").read_text().count(word)

    path, segmented, left = visitor.upload(png(picture(1))), count("SEGMENTS"), count("LEFT")
    (folder / "closed").touch()
    try:
        event = visitor.call("compare", path, "road")
        with visitor.http.stream("GET", f"/call/compare/{event}"):
            wait_until(lambda: count("SEGMENTS") > segmented)
        wait_until(lambda: count("LEFT") > left)
    finally:
        (folder / "closed").unlink()
    # One call runs after the other: where this one has its answer, the abandoned one has ended.
    assert visitor.compare(png(picture(2)))["scene"] == "road"
    assert count("SEGMENTS") - segmented < 3 + 3


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_files_are_deleted_after_use_and_sigterm_finishes_what_was_accepted(models, tmp_path):
    prelude = GATED + SWEPT + PATIENT
    with (
        running(models, tmp_path, prelude=prelude) as (address, process),
        Visitor(address) as visitor,
    ):
        first = visitor.upload(png(picture(6)))
        result = visitor.answer("segment", visitor.call("segment", first, NETWORK))
        files = upload_folder(tmp_path)
        kept = [files / path.removeprefix("/files/") for path in (first, result["path"])]
        assert all(path.exists() for path in kept)
        (tmp_path / "sweep").touch()
        wait_until(lambda: not any(path.exists() for path in kept))
        (tmp_path / "sweep").unlink()
        assert visitor.http.get(f"/file={result['path']}").status_code == 404
        with pytest.raises(RefusedError, match="no longer on this server"):
            visitor.answer("segment", visitor.call("segment", first, NETWORK))

        with occupied(visitor, tmp_path, 2) as (slow, waiting):
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Finishing accepted calls" in (tmp_path / "log.txt").read_text())
            with pytest.raises(QueueFullError, match="server is stopping"):
                visitor.call("segment", first, NETWORK)
            with pytest.raises(RefusedError, match="server is stopping"):
                visitor.upload(png(picture(7)))
        for event in (slow, *waiting):
            answer = visitor.answer("segment", event)
            assert visitor.http.get(f"/file={answer['path']}").status_code == 200
        assert process.wait(PATIENCE) == 0
    assert not list(tmp_path.glob("segmodels-*"))


def test_memory_is_given_back_once_after_work(monkeypatch):
    working, trims, clock = [True], [], [100.0]
    monkeypatch.setattr(server, "is_at_work", lambda page: working[0])
    monkeypatch.setattr(server, "trim_memory", lambda: trims.append(clock[0]))
    monkeypatch.setattr(server.time, "monotonic", lambda: clock[0])
    upkeep = server.Upkeep(None, None)
    upkeep._next = 1e9  # nothing else is due
    for seconds, works in ((0, True), (3, False), (6, False), (20, False), (60, False)):
        clock[0], working[0] = 100.0 + seconds, works
        upkeep.tick()
    assert trims == [106.0]


@pytest.mark.parametrize(
    ("port", "message"),
    [("taken", "cannot be used"), ("abc", "is not a port"), ("70000", "is not a port")],
)
def test_a_port_that_cannot_be_used_is_told_in_a_sentence(monkeypatch, port, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1]) if port == "taken" else port
        monkeypatch.setenv("GRADIO_SERVER_PORT", port)
        with pytest.raises(server.ServerError, match=f"^segmodels: .*{message}"):
            server.chosen_port("127.0.0.1", None)
    monkeypatch.delenv("GRADIO_SERVER_PORT")
    assert server.chosen_port("127.0.0.1", None) is None


@pytest.mark.parametrize(
    ("name", "variables", "hosts"),
    [
        ("127.0.0.1", {}, ("localhost", "127.0.0.1", "::1")),
        ("0.0.0.0", {}, None),
        ("127.0.0.1", {"SEGMODELS_ALLOWED_HOSTS": "*"}, None),
        (
            "127.0.0.1",
            {"SEGMODELS_ALLOWED_HOSTS": "Seg.Example, b"},
            ("localhost", "127.0.0.1", "::1", "seg.example", "b"),
        ),
        (
            "localhost",
            {"GRADIO_ROOT_PATH": "https://seg.example/demo"},
            ("localhost", "127.0.0.1", "::1", "seg.example"),
        ),
    ],
)
def test_which_names_a_server_answers_to(monkeypatch, name, variables, hosts):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert server.allowed_hosts(name) == hosts
