"""Link previews of the page: its title, description and image. They replace the tags in Gradio's
template, because the first of two equal tags wins."""

import re
from html import escape
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTE = "/preview.jpg"
SIZE = (1200, 630)  # width and height of the image in pixels
_TAGS = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*')
_HEAD = b'<meta charset="utf-8" />'


class LinkPreview:
    """ASGI middleware that replaces the page's preview tags and serves the preview image.

    Args:
        app: The Gradio application.
        title: Title of the page.
        description: One-sentence description of the page.
        image: JPEG file of size `SIZE`.
    """

    def __init__(self, app: ASGIApp, title: str, description: str, image: Path) -> None:
        self.app = app
        self.title = title
        self.description = description
        self.image = image

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "").rstrip("/")
        path = scope.get("path", "").removeprefix(root)
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif path == ROUTE:
            await FileResponse(self.image)(scope, receive, send)
        elif path in ("", "/"):
            await self.app(scope, receive, self._rewriting(scope, send))
        else:
            await self.app(scope, receive, send)

    def tags(self, address: str) -> bytes:
        """Return the tags for a page at this address."""
        width, height = SIZE
        properties = {
            "og:type": "website",
            "og:url": f"{address}/",
            "og:title": self.title,
            "og:description": self.description,
            "og:image": f"{address}{ROUTE}",
            "og:image:width": str(width),
            "og:image:height": str(height),
        }
        names = {
            "description": self.description,
            "twitter:card": "summary_large_image",
            "twitter:title": self.title,
            "twitter:description": self.description,
            "twitter:image": f"{address}{ROUTE}",
        }
        tags = [f'<meta property="{key}" content="{escape(v)}" />' for key, v in properties.items()]
        tags += [f'<meta name="{key}" content="{escape(value)}" />' for key, value in names.items()]
        return "\n".join(tags).encode()

    def _rewriting(self, scope: Scope, send: Send) -> Send:
        """Wrap `send` to replace the page's tags. The response starts once its body is complete."""
        start: Message | None = None
        body = bytearray()

        async def rewriting(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body.extend(message.get("body", b""))
            if message.get("more_body") or start is None:
                return
            page = _TAGS.sub(b"", bytes(body))
            page = page.replace(_HEAD, _HEAD + b"\n" + self.tags(address_of(scope)), 1)
            headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            length = len(body) if scope["method"] == "HEAD" else len(page)
            headers.append((b"content-length", str(length).encode()))
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": page})

        return rewriting


def address_of(scope: Scope) -> str:
    """Return the page's address as seen by the visitor's browser, also behind a proxy, without a
    trailing slash."""
    headers = Headers(scope=scope)
    scheme = headers.get("x-forwarded-proto") or scope.get("scheme", "http")
    host = headers.get("x-forwarded-host") or headers.get("host") or "127.0.0.1:7860"
    first = [value.split(",")[0].strip() for value in (scheme, host)]
    return f"{first[0]}://{first[1]}{scope.get('root_path', '')}".rstrip("/")
