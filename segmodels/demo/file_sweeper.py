"""Deletion of old files that visits leave on disk: uploads, results and cached downloads."""

import time
from contextlib import suppress
from pathlib import Path


class FileSweeper:
    """Deletes files in a folder that have not been written or served recently.

    It applies to all files, whoever wrote them: Gradio's own `delete_cache` tracks only some of the
    files that its components cache. Files that exist when the sweeper is created (the page's
    examples) are kept.

    Args:
        folder: Folder to sweep, recursively.
        max_age: Age in seconds from which a file is deleted.
    """

    def __init__(self, folder: Path, max_age: float) -> None:
        self.folder = folder
        self.max_age = max_age
        self.permanent = frozenset(path for path in folder.rglob("*") if path.is_file())

    def sweep(self) -> set[str]:
        """Delete old files, then empty folders.

        Returns:
            The paths of the deleted files.
        """
        oldest = time.time() - self.max_age
        deleted = set()
        for path in sorted(self.folder.rglob("*"), reverse=True):  # contents before their folder
            with suppress(OSError):  # already deleted, or a folder that is not empty
                status = path.lstat()
                # A copy keeps its original's modification time, so check the change time as well.
                if max(status.st_mtime, status.st_ctime) > oldest or path in self.permanent:
                    continue
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
                    deleted.add(str(path))
        return deleted

    def stored_bytes(self) -> int:
        """Return the total size of the folder in bytes."""
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # already deleted
                total += path.lstat().st_size
        return total
