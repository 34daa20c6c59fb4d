"""One training at a time in a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from segmodels.training.config import TrainingError

LOCK_NAME = ".train.lock"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process, however it ends.

    Args:
        folder: the training's output folder, which exists.

    Raises:
        TrainingError: if another process holds it.
    """
    path = folder / LOCK_NAME
    with _locked_file(path) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps open files
                path.unlink()


def _locked_file(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")  # closed by `exclusive`
        try:
            _lock(file)
        except OSError as error:
            holder = "unknown"
            with contextlib.suppress(OSError):  # Windows does not let a locked file be read
                file.seek(0)
                holder = file.read().strip() or holder
            file.close()
            raise TrainingError(
                f"another training (process {holder}) is running in {path.parent}: wait for it, "
                "or choose another --out"
            ) from error
        # The one before may have removed the file between our opening and locking it.
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
        # POSIX locks, unlike flock, are not inherited by the processes that load images.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
