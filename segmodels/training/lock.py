"""Locking of output folders, so that only one training at a time uses a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from segmodels.training.config import TrainingError

LOCK_NAME = ".train.lock"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; it is released when the process ends for any reason.

    Args:
        folder: The output folder, which must exist.

    Raises:
        TrainingError: If another process holds the lock.
    """
    path = folder / LOCK_NAME
    with _locked_file(path) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # open files cannot be deleted on Windows
                path.unlink()


def _locked_file(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")  # closed by `exclusive`
        try:
            _lock(file)
        except OSError as error:
            holder = "unknown"
            with contextlib.suppress(OSError):  # locked files cannot be read on Windows
                file.seek(0)
                holder = file.read().strip() or holder
            file.close()
            raise TrainingError(
                f"another training (process {holder}) is running in {path.parent}: wait for it, "
                "or choose another --out"
            ) from error
        # The previous holder may have deleted the file after we opened it and before we locked it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


if os.name == "nt":  # pragma: no cover
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        # Unlike flock, POSIX locks are not inherited by data loader processes.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
