"""What other sites show of a link to the page."""

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from segmodels.demo import link_preview
from segmodels.demo.components import ASSETS
from segmodels.demo.link_preview import LinkPreview, address_of
from tests.support import loops

PAGE = """<!doctype html><html><head><meta charset="utf-8" />
<meta property="og:title" content="Gradio" /><meta
    property="og:image"
    content="https://example.org/gradio.jpg"
/><meta name="twitter:creator" content="@Gradio" />
<meta name="viewport" content="width=device-width" /></head><body>é</body></html>"""


@pytest.fixture
def client():
    routes = [
        Route("/", lambda _: HTMLResponse(PAGE)),
        Route("/other", lambda _: PlainTextResponse(PAGE)),
    ]
    preview = Middleware(LinkPreview, 'A "title"', "What it is", ASSETS / "preview.jpg")
    return TestClient(Starlette(routes=routes, middleware=[preview]), "http://page.example")


def test_the_pages_own_tags_replace_gradios(client):
    answer = client.get("/")
    text = answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "Gradio" not in text
    assert "gradio.jpg" not in text
    assert '<meta property="og:title" content="A &quot;title&quot;" />' in text
    assert '<meta property="og:image" content="http://page.example/preview.jpg" />' in text
    assert '<meta name="description" content="What it is" />' in text
    assert 'name="viewport"' in text
    assert text.endswith("é</body></html>")


def test_addresses_are_those_that_a_proxy_is_reached_by(client):
    headers = {"x-forwarded-proto": "https", "x-forwarded-host": "demo.example, inner"}
    assert '"https://demo.example/preview.jpg"' in client.get("/", headers=headers).text
    scope = {"scheme": "http", "headers": [(b"host", b"a.example:80")], "root_path": "/sub/"}
    assert address_of(scope) == "http://a.example:80/sub"


def test_the_image_has_the_size_that_is_declared(client):
    answer = client.get("/preview.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(ASSETS / "preview.jpg") as image:
        assert image.size == link_preview.SIZE
    assert len(answer.content) < 300_000


def test_nothing_else_is_touched(client):
    assert client.get("/other").text == PAGE
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    preview = LinkPreview(app, "", "", ASSETS / "preview.jpg")
    loops.run(preview({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
