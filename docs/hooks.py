"""Pages of the site whose content is a file in the root of the repository."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = {"security.md": "SECURITY.md", "changelog.md": "CHANGELOG.md"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the content of these pages by the file, with links adapted to the site."""
    file = FILES.get(page.file.src_uri)
    if file is None:
        return markdown
    return (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
