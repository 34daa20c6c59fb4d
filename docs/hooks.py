"""Pages of the site that are files of the repository's root."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = {"security.md": "SECURITY.md", "changelog.md": "CHANGELOG.md"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of the file, with its links as the site has them."""
    file = FILES.get(page.file.src_uri)
    if file is None:
        return markdown
    return (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
