"""Uploaded files: receiving them, and hiding the path of their folder from clients."""

import errno
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from gradio import route_utils
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException

MAX_UPLOAD = 30_000_000  # bytes per file; its pixels are limited by service.MAX_PIXELS
ALIAS = "/files"  # the path of the upload folder as seen by clients
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UploadFolder:
    """The folder of uploads and results, known to clients as `ALIAS`.

    Responses thus contain no absolute paths of the server, and requests cannot refer to files
    outside this folder.

    Args:
        folder: An absolute path without symbolic links.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = str(folder)
        spellings = dict.fromkeys([json.dumps(name)[1:-1], name, quote(name)])
        self._spellings = [spelling.encode() for spelling in spellings]

    def real_path(self, path: str) -> str | None:
        """Return the path on disk for a path or URL that this server gave to a client, or None for
        any other."""
        path = path.rpartition("/gradio_api/file=")[2]
        parts = PurePosixPath(path).parts
        if not path.startswith(f"{ALIAS}/") or ".." in parts or "\0" in path or "\\" in path:
            return None
        return str(self.folder.joinpath(*parts[2:]))

    def hide(self, content: bytes) -> bytes:
        """Replace the folder's path in a response by its alias."""
        for spelling in self._spellings:
            content = content.replace(spelling, ALIAS.encode())
        return content

    def has_space(self, size: int) -> bool:
        """Whether the disk has more than `size` bytes left."""
        return shutil.disk_usage(self.folder).free > size


class CleanParser(route_utils.GradioMultiPartParser):
    """Variant of Gradio's upload parser that leaves no files behind on failure and accepts any file
    name. Failures include a full disk, a client that disconnects and unexpected form fields."""

    async def parse(self) -> FormData:
        try:
            form = await super().parse()
            for name, value in form.multi_items():
                if name == "files":
                    _check(value)
        except BaseException as error:
            for file in self._files_to_close_on_error:
                with suppress(OSError):
                    file.close()
                Path(file.name).unlink(missing_ok=True)
            if isinstance(error, AttributeError | KeyError | UnicodeError):
                raise MultiPartException("The form data cannot be read.") from error
            raise
        return form


def _check(value: UploadFile | str) -> None:
    if not isinstance(value, UploadFile):
        raise MultiPartException("The field `files` does not contain a file.")
    if Path(value.filename or "").name in ("", ".", ".."):
        value.filename = None  # makes Gradio choose a name


def receive_uploads_cleanly() -> None:
    """Make Gradio parse uploads with `CleanParser`; it has no option for this."""
    route_utils.GradioMultiPartParser = CleanParser  # type: ignore[misc]


def storage_problem(error: OSError) -> tuple[int, str]:
    """Return the HTTP status and message for an upload folder that cannot be written to."""
    if error.errno in NO_SPACE:
        return 507, "The server's disk is full; try again in a few minutes."
    return 503, "The server cannot store files at the moment; try again in a few minutes."


def map_paths(data: Any, real_path: Callable[[str], str | None]) -> Any:
    """Replace the `path` of every object in JSON data by the real path.

    Raises:
        ValueError: If a path does not refer to an uploaded file.
    """
    if isinstance(data, list):
        return [map_paths(item, real_path) for item in data]
    if not isinstance(data, dict):
        return data
    mapped = {key: map_paths(value, real_path) for key, value in data.items()}
    if isinstance(mapped.get("path"), str):
        real = real_path(mapped["path"])
        if real is None:
            raise ValueError(mapped["path"])
        mapped["path"] = real
    return mapped
