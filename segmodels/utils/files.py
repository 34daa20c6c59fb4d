"""Files that are written completely or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_FILES = ".segmodels-*.tmp"  # what an interrupted process may leave behind


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Write a file so that readers see the old one or the complete new one.

    Args:
        path: The file to write.
        replace: Whether a file that is already there is replaced.

    Yields:
        A temporary path in the same folder to write to. It becomes `path` when the block ends, and
        is removed when the block raises.

    Raises:
        FileExistsError: If `path` exists and `replace` is False.
    """
    # Short, whatever the file's own name: that may be as long as the file system allows.
    scratch = path.with_name(f".segmodels-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        if replace:
            scratch.replace(path)
        else:
            _move_to_free_name(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _move_to_free_name(scratch: Path, path: Path) -> None:
    """Give a file its name unless that is taken, also by a file that appears meanwhile."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(path, "xb"):  # takes the name
            pass
        scratch.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with `atomic_write`."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
