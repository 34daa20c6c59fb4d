"""Deletes what visits leave on disk (uploads, results, cached downloads) once it is old enough."""

import time
from contextlib import suppress
from pathlib import Path


class FileSweeper:
    """Deletes every file of a folder that has not been written or handed out for a while, whoever
    wrote it: Gradio's own `delete_cache` knows only some of the files that its components cache.

    Files that are there when the sweeper is made (the page's examples) stay.

    Args:
        folder: Swept with everything below it.
        max_age: Seconds after which a file is deleted.
    """

    def __init__(self, folder: Path, max_age: float) -> None:
        self.folder = folder
        self.max_age = max_age
        self.permanent = frozenset(path for path in folder.rglob("*") if path.is_file())

    def sweep(self) -> set[str]:
        """Delete old files, and then folders that are empty.

        Returns:
            The paths of the files that were deleted.
        """
        oldest = time.time() - self.max_age
        deleted = set()
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what a folder holds before it
            with suppress(OSError):  # deleted meanwhile, or a folder that is not empty
                status = path.lstat()
                # A copy keeps the modification time of its original, so the change time counts too.
                if max(status.st_mtime, status.st_ctime) > oldest or path in self.permanent:
                    continue
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
                    deleted.add(str(path))
        return deleted

    def stored_bytes(self) -> int:
        """Size of all that lies in the folder."""
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # deleted meanwhile
                total += path.lstat().st_size
        return total
