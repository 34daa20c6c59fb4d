"""Atomic file writes."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_FILES = ".segmodels-*.tmp"  # an interrupted process may leave them behind


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Write a file so that readers see either the old or the complete new content.

    Args:
        path: The file to write.
        replace: Whether to replace an existing file.

    Yields:
        A temporary path in the same folder to write to. It is moved to `path` when the block ends,
        and deleted if the block raises.

    Raises:
        FileExistsError: If `path` exists and `replace` is False.
    """
    # A short name: that of the file may already have the maximum length of the file system.
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
    """Move a file unless the destination exists, without a race."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(path, "xb"):  # reserves the name
            pass
        scratch.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with `atomic_write`."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
