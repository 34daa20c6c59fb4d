"""Result files: their names, and metadata about the image and the model that they come from.

Other files are never overwritten, and names are unique. Existing results are recognised by their
metadata, not by their names.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from segmodels.inference.decoded_image import file_digest
from segmodels.inference.results import read_metadata
from segmodels.models.base import SegmentationModel

OVERLAY = "_overlay"  # suffix of the stem of overlays
CLASS_IDS_KIND, OVERLAY_KIND = "class ids", "overlay"
MAX_NAME_BYTES = 255  # limit of most file systems


@dataclass(frozen=True)
class Origin:
    """The model and settings that results are computed with.

    Attributes:
        model: Hub id or folder name, for readers.
        model_digest: SHA-256 of the network's config and weights.
        working_size: The requested working size; None: the network's own.
        opacity: Opacity of the overlays.
    """

    model: str
    model_digest: str
    working_size: int | None = None
    opacity: float = 0.5

    def metadata(self, image_digest: str, kind: str) -> dict[str, str]:
        """The metadata of a result file, see `save_png`."""
        entries = {
            "kind": kind,
            "image_sha256": image_digest,
            "model": self.model,
            "model_sha256": self.model_digest,
            "working_size": str(self.working_size),
        }
        return entries | ({"opacity": str(self.opacity)} if kind == OVERLAY_KIND else {})


@dataclass(frozen=True)
class ResultFormat:
    """File formats of results.

    Attributes:
        class_ids: Suffix of files with class ids.
        overlay: Suffix of overlays.
        read: Reads the `Origin.metadata` of such a file; empty for other files.
    """

    class_ids: str = ".png"
    overlay: str = ".png"
    read: Callable[[Path], Mapping[str, str]] = read_metadata


IMAGE_RESULTS = ResultFormat()


@dataclass(frozen=True)
class Job:
    """An image or video, and the paths of its results.

    Attributes:
        image: Path of the image or video.
        class_ids: Output path of the class ids.
        overlay: Output path of the overlay.
        is_done: Whether both exist, for the same image, model and settings.
        may_replace: Whether existing files are an earlier result of the same image and model.
    """

    image: Path
    class_ids: Path
    overlay: Path
    is_done: bool = False
    may_replace: bool = False


def model_digest(model: SegmentationModel) -> str:
    """Hexadecimal SHA-256 of a network's config and weights."""
    digest = hashlib.sha256(json.dumps(model.config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def is_result(path: Path) -> bool:
    """Whether an image file is a result with metadata of `Origin`."""
    return "image_sha256" in read_metadata(path)


def plan_jobs(
    images: Sequence[Path], out: Path, origin: Origin, kind: ResultFormat = IMAGE_RESULTS
) -> list[Job]:
    """Choose the output paths for each image.

    If `out` contains a result of the same image and model, its paths are used, whatever their
    names. All other images get unused names: that of the image, if necessary followed by its suffix
    or a number.

    Args:
        images: Paths without duplicates.
        out: Output folder, which need not exist.
        origin: The model and settings.
        kind: The file formats.

    Returns:
        A job for each image, in the same order.
    """
    existing = _ExistingResults(out, origin, kind)
    found = existing.match(images)
    names = _FreeNames(out)
    return [found.get(image) or names.job(image, out, kind) for image in images]


def _stems(image: Path) -> Iterator[str]:
    """Candidate stems for the results of an image, in order of preference."""
    yield _truncated(image.stem, "")
    yield _truncated(image.stem, image.suffix.replace(".", "_"))
    number = 2
    while True:
        yield _truncated(image.stem, f"_{number}")
        number += 1


def _truncated(stem: str, end: str) -> str:
    """The stem followed by `end`, truncated so that file names do not exceed MAX_NAME_BYTES."""
    max_bytes = MAX_NAME_BYTES - len(os.fsencode(f"{end}{OVERLAY}.tiff"))
    while len(os.fsencode(stem)) > max_bytes:
        stem = stem[:-1]
    return stem + end


def _key(name: str) -> str:
    """A key that is equal for names that are identical on some file systems."""
    return unicodedata.normalize("NFC", name).casefold()


class _FreeNames:
    """Allocates names that no file in a folder and no other result has."""

    def __init__(self, folder: Path) -> None:
        self.taken = {_key(path.name) for path in folder.iterdir()} if folder.is_dir() else set()

    def job(self, image: Path, folder: Path, kind: ResultFormat) -> Job:
        for stem in _stems(image):
            pair = f"{stem}{kind.class_ids}", f"{stem}{OVERLAY}{kind.overlay}"
            keys = {_key(name) for name in pair}
            if not keys & self.taken:
                self.taken |= keys
                return Job(image, folder / pair[0], folder / pair[1])
        raise AssertionError("unreachable: the candidate names are infinite")


@dataclass
class _ExistingResults:
    """The existing results of a model in a folder, by the digest of their image."""

    folder: Path
    origin: Origin
    kind: ResultFormat
    by_image: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = self.folder.glob(f"*{self.kind.class_ids}") if self.folder.is_dir() else ()
        for path in sorted(files):
            found = self.kind.read(path)
            image_digest = found.get("image_sha256", "")
            if found.items() >= self.origin.metadata(image_digest, CLASS_IDS_KIND).items():
                self.by_image.setdefault(image_digest, []).append(path)

    def match(self, images: Iterable[Path]) -> dict[Path, Job]:
        """Create jobs for the images that have a result. Each result is used for one image only."""
        if not self.by_image:
            return {}
        digests = {image: _digest_or_none(image) for image in images}
        jobs = {}
        for own_name in (True, False):  # identical images: results with the image's name first
            for image, digest in digests.items():
                results = self.by_image.get(digest or "", [])
                for path in results:
                    if image not in jobs and (not own_name or path.stem == image.stem):
                        job = self._job(image, digest or "", path)
                        if job is not None:
                            jobs[image] = job
                            results.remove(path)
                            break
        return jobs

    def _job(self, image: Path, digest: str, class_ids: Path) -> Job | None:
        """Create a job for an existing result; None if its overlay's path is that of a file of
        another origin."""
        overlay = class_ids.with_name(f"{class_ids.stem}{OVERLAY}{self.kind.overlay}")
        found = self.kind.read(overlay)
        expected = self.origin.metadata(digest, OVERLAY_KIND)
        is_done = found.items() >= expected.items()
        expected.pop("opacity")
        if os.path.lexists(overlay) and not found.items() >= expected.items():
            return None
        return Job(image, class_ids, overlay, is_done, may_replace=True)


def _digest_or_none(path: Path) -> str | None:
    try:
        return file_digest(path) if path.is_file() else None
    except OSError:  # reported when the image is decoded
        return None
