"""Which files of a folder are images, judged by their names."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segmodels.data._untrusted_images import FORMATS, INSTALL_HEIF, has_heif
from segmodels.data.multispectral import NPY
from segmodels.utils.formatting import count_of

__all__ = ["FolderListing", "heif_hint", "list_images"]

# Files that are expected beside images: of the operating system, annotations and notes.
IGNORED_NAMES = ("thumbs.db", "desktop.ini", ".ds_store")
IGNORED_SUFFIXES = (".json", ".txt", ".xml", ".csv", ".md", ".yaml", ".yml", ".ini", ".db")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder, sorted by name.

    Attributes:
        images: Files with the suffix of a supported format, or without a suffix.
        ignored: Files that are not images, such as Thumbs.db, ._photo.jpg or photo.json.
        unsupported: Files in other formats.
    """

    images: list[Path]
    ignored: list[Path]
    unsupported: list[Path]

    def notes(self, folder: Path) -> list[str]:
        """Describe the ignored and the unsupported files, in a sentence each."""
        notes = []
        if self.ignored:
            names = ", ".join(path.name for path in self.ignored[:3])
            more = ", ..." * (len(self.ignored) > 3)
            notes.append(
                f"{folder}: ignored {count_of(len(self.ignored), 'file')} not in an image format "
                f"({names}{more})"
            )
        if self.unsupported:
            counts = Counter(path.suffix.lower() for path in self.unsupported)
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
            notes.append(
                f"{folder}: skipped {count_of(len(self.unsupported), 'file')} in unsupported "
                f"formats ({kinds}){heif_hint(counts)}"
            )
        return notes


def list_images(folder: Path) -> FolderListing:
    """Sort the files of a folder into images and others; subfolders are skipped.

    Raises:
        OSError: If the folder cannot be read.
    """
    suffixes = _image_suffixes()
    images, ignored, unsupported = [], [], []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.is_dir():
            continue
        if path.name.lower() in IGNORED_NAMES or path.name.startswith("."):
            ignored.append(path)
        elif suffix in suffixes or not suffix:
            images.append(path)
        elif suffix in IGNORED_SUFFIXES:
            ignored.append(path)
        else:
            unsupported.append(path)
    return FolderListing(images, ignored, unsupported)


def heif_hint(suffixes: Iterable[str]) -> str:
    """Explain how to read HEIC images if one of the suffixes is theirs; else ""."""
    return f"; {INSTALL_HEIF}" if any(s.lower() in HEIF_SUFFIXES for s in suffixes) else ""


def _image_suffixes() -> frozenset[str]:
    has_heif()  # registers pillow-heif's suffixes
    registered = Image.registered_extensions()
    return frozenset(s for s, kind in registered.items() if kind in FORMATS) | {NPY}
