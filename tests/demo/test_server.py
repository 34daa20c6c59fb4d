"""The demo as strangers meet it: many at once, closed doors, limits, and its end."""

import io
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from tests.load.soak import known_answers, memory_of, soak
from tests.support.server import (
    QueueFullError,
    RefusedError,
    Visitor,
    picture,
    png,
    running,
    write_networks,
)

NETWORK = "unet-camvid"
# Files are deleted after some seconds, not minutes, if the page asks for deletion at all.
SOON = (
    "import gradio as gr; made = gr.Blocks.__init__; "
    "gr.Blocks.__init__ = lambda self, *a, delete_cache=None, **k: "
    "made(self, *a, delete_cache=delete_cache and (1, 6), **k)"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_networks(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def answers(models):
    return known_answers(models)


@pytest.fixture(scope="module")
def demo(models, tmp_path_factory):
    """Address, process and folder of a demo that all tests but those of its end share."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "segmodels-99999999-killed").mkdir()  # what a killed process left: no id is so high
    with running(models, folder) as (address, process):
        yield address, process, folder


@pytest.fixture
def address(demo):
    return demo[0]


@pytest.fixture
def visitor(address):
    with Visitor(address) as visitor:
        yield visitor


def slow_picture(side=5000):
    """A picture of 25 megapixels: a second or so of work, whatever the network."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 200)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def files_in(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


# ---- many at once ----


def test_twenty_programs_at_once_get_each_its_own_answer(address, answers, tmp_path):
    def work(number):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(picture(number)))
        client = Client(address, verbose=False, download_files=tmp_path / str(number))
        found = client.predict(handle_file(path), NETWORK, api_name="/segment")
        with Image.open(found) as ids:
            return np.array_equal(np.array(ids), answers[NETWORK, number])

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(work, range(20)))


def test_under_load_nothing_is_lost_and_nobody_gets_anothers_answer(demo, answers):
    address, process, _ = demo
    before = memory_of(process)
    report = soak(address, answers, clients=50, seconds=5)
    assert report.problems == []
    assert report.counts["served"] >= 20
    assert report.counts["refused"] >= 1
    assert memory_of(process) - before < 300_000_000


def occupied(visitor, places, side=5000):
    """A slow call that runs, and so many calls waiting behind it."""
    slow = visitor.call("segment", visitor.upload(slow_picture(side)), NETWORK)
    path = visitor.upload(png(picture(1)))
    time.sleep(0.3)  # the slow one is running
    return slow, [visitor.call("segment", path, NETWORK) for _ in range(places)]


def test_a_full_queue_says_so_and_those_in_it_are_served_in_order(visitor, address):
    slow, waiting = occupied(visitor, 20)
    with pytest.raises(QueueFullError, match=r"Queue is full"):
        visitor.call("segment", visitor.upload(png(picture(2))), NETWORK)
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


def test_a_client_that_leaves_frees_its_place(visitor, address):
    slow, waiting = occupied(visitor, 20)
    with (
        Visitor(address) as leaving,
        leaving.http.stream("GET", f"/call/segment/{waiting[10]}") as stream,
    ):
        assert stream.status_code == 200
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            event = visitor.call("segment", visitor.upload(png(picture(3))), NETWORK)
            break
        except QueueFullError:
            time.sleep(0.02)
    assert visitor.answer("segment", event)
    for other in (slow, waiting[9], waiting[11]):
        assert visitor.answer("segment", other)


def test_bad_pictures_get_a_word_and_good_ones_after_them_their_answer(visitor, answers):
    for content, message in (
        (b"no picture", "is not a picture"),
        (png(picture(4))[:300], "damaged, cut off"),
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


# ---- closed doors ----


@pytest.mark.parametrize(
    "path",
    [
        *("/monitoring", "/monitoring/summary", "/gradio_api/file=/etc/passwd", "/gradio_api/dev"),
        *("/gradio_api/file=app.py", "/gradio_api/file=../app.py", "/gradio_api/file=.git/config"),
        *("/gradio_api/file=https://example.com/", "/gradio_api/proxy=https://example.com/"),
        *("/gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fapp.py"),
        *("/static/..%2f..%2f..%2fapp.py", "/gradio_api/runs", "/gradio_api/run-history/buckets"),
        *("/gradio_api/profiling/traces", "/gradio_api/vibe-code", "/gradio_api/component_server"),
        "/gradio_api/file=http%3A//127.0.0.1/",
    ],
)
def test_this_door_is_closed(address, path):
    assert httpx.get(address + path).status_code in (403, 404, 405)


def test_files_of_the_server_are_neither_read_nor_listed(demo, visitor, models):
    _, _, folder = demo
    weights = f"{models.split(',')[0]}/model.safetensors"
    uploads = next(folder.glob("segmodels-*"))
    for path in (weights, uploads, folder, folder / "log.txt", f"{uploads}/../log.txt"):
        assert visitor.http.get(f"/file={path}").status_code in (403, 404), path
    for path in ("/etc/passwd", "app.py", weights, f"{uploads}/../log.txt", "file:///etc/passwd"):
        with pytest.raises(RefusedError) as refused:
            visitor.answer("segment", visitor.call("segment", str(path), NETWORK))
        assert "root" not in str(refused.value)


def test_what_lies_in_the_folder_is_for_the_server_alone(demo):
    folders = list(demo[2].glob("segmodels-*"))
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700]  # and the killed one's
    assert str(demo[1].pid) in folders[0].name  # is gone


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
        with pytest.raises(RefusedError, match="fetches nothing from other addresses"):
            visitor.call("segment", url, NETWORK)
        for path in (url, "https://huggingface.co/front.png"):
            with pytest.raises(ValidationError, match="give the picture itself"):
                Client(address, verbose=False).predict(
                    {"path": path, "meta": {"_type": "gradio.FileData"}},
                    NETWORK,
                    api_name="/segment",
                )
        # The address beside an uploaded picture is not followed.
        file = {"path": visitor.upload(png(picture(5))), "url": url, "orig_name": url}
        body = {"data": [{**file, "meta": {"_type": "gradio.FileData"}}, NETWORK]}
        event = visitor.http.post("/call/segment", json=body).json()["event_id"]
        assert visitor.answer("segment", event)
        inside.shutdown()
    assert hits == []


# ---- limits ----


def test_uploads_have_a_limit_whatever_length_they_claim(demo, visitor):
    before = files_in(demo[2])
    for size in (30_500_000, 33_000_000):
        with pytest.raises(RefusedError, match=r"exceeded|too many"):
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
    end = time.monotonic() + 20
    while files_in(folder) != before and time.monotonic() < end:
        time.sleep(0.05)
    assert files_in(folder) == before


@pytest.mark.parametrize(
    ("content", "status"), [(b" " * 1_500_000, 413), (b"{", 400), (b"[" * 100_000, 400)]
)
def test_a_call_that_is_too_long_or_no_json_is_refused(visitor, content, status):
    for path in ("/queue/join", "/call/segment"):
        answer = visitor.http.post(path, content=content, headers={"content-type": "text/json"})
        assert answer.status_code == status


# ---- its end ----


def test_pictures_are_deleted_after_use_and_sigterm_finishes_what_was_accepted(models, tmp_path):
    with running(models, tmp_path, prelude=SOON) as (address, process), Visitor(address) as visitor:
        first = visitor.upload(png(picture(6)))
        result = visitor.answer("segment", visitor.call("segment", first, NETWORK))
        kept = [Path(first), Path(result["path"])]
        end = time.monotonic() + 20
        while time.monotonic() < end and any(path.exists() for path in kept):
            time.sleep(0.1)
        assert not any(path.exists() for path in kept)

        slow, waiting = occupied(visitor, 2, side=3000)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(QueueFullError, match="server is stopping"):
            visitor.call("segment", first, NETWORK)
        with pytest.raises(RefusedError, match="server is stopping"):
            visitor.upload(png(picture(7)))
        for event in (slow, *waiting):
            answer = visitor.answer("segment", event)
            assert visitor.http.get(f"/file={answer['path']}").status_code == 200
        assert process.wait(30) == 0
    assert not list(tmp_path.glob("segmodels-*"))
