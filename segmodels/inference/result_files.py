"""Files that results are written to: their names, and the image and model that they came from.

No file of the user's is overwritten and no two results share a name. A result is known again by
what its metadata records, not by its name.
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

OVERLAY = "_overlay"  # at the end of an overlay's stem
CLASS_IDS_KIND, OVERLAY_KIND = "class ids", "overlay"
MAX_NAME_BYTES = 255  # of most file systems


@dataclass(frozen=True)
class Origin:
    """What results come from, beside the image.

    Attributes:
        model: The Hub id or the folder's name, for people to read.
        model_digest: SHA-256 of the network's configuration and weights.
        working_size: As it was asked for; None: the network's own.
        opacity: Of the overlays.
    """

    model: str
    model_digest: str
    working_size: int | None = None
    opacity: float = 0.5

    def metadata(self, image_digest: str, kind: str) -> dict[str, str]:
        """What a result's file records, for `save_png`."""
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
    """The files of a result.

    Attributes:
        class_ids: Suffix of the file of class ids.
        overlay: Suffix of the file of the overlay.
        read: Gives what `Origin.metadata` recorded in such a file, and nothing for any other.
    """

    class_ids: str = ".png"
    overlay: str = ".png"
    read: Callable[[Path], Mapping[str, str]] = read_metadata


IMAGE_RESULTS = ResultFormat()


@dataclass(frozen=True)
class Job:
    """An image or a video, and where its class ids and its overlay go.

    Attributes:
        image: The file.
        class_ids: The file of class ids.
        overlay: The file of the overlay.
        is_done: Both are there, of this image, this model and these settings.
        may_replace: The files that are there are an earlier result of this image and this model.
    """

    image: Path
    class_ids: Path
    overlay: Path
    is_done: bool = False
    may_replace: bool = False


def model_digest(model: SegmentationModel) -> str:
    """SHA-256, in hex, of a network's configuration and weights."""
    digest = hashlib.sha256(json.dumps(model.config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def is_result(path: Path) -> bool:
    """Whether a file is a result that was written by way of `plan_jobs`."""
    return "image_sha256" in read_metadata(path)


def plan_jobs(
    images: Sequence[Path], out: Path, origin: Origin, kind: ResultFormat = IMAGE_RESULTS
) -> list[Job]:
    """Where the results of each image go.

    An image whose result by the same model is in `out` keeps those files, whatever they are called.
    Any other gets a name that is free: its own, or one with its suffix or a number.

    Args:
        images: The files, each once.
        out: The folder of the results, which need not exist.
        origin: What the results come from.
        kind: The files that they are written to.
    """
    existing = _ExistingResults(out, origin, kind)
    found = existing.match(images)
    names = _FreeNames(out)
    return [found.get(image) or names.job(image, out, kind) for image in images]


def _stems(image: Path) -> Iterator[str]:
    """Stems for the results of an image, the best first."""
    yield _bounded(image.stem, "")
    yield _bounded(image.stem, image.suffix.replace(".", "_"))
    number = 2
    while True:
        yield _bounded(image.stem, f"_{number}")
        number += 1


def _bounded(stem: str, end: str) -> str:
    """The stem and its end, cut so that the longest file name made of it is short enough."""
    room = MAX_NAME_BYTES - len(os.fsencode(f"{end}{OVERLAY}.tiff"))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + end


def _key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


class _FreeNames:
    """Names that neither a file in a folder nor another result has."""

    def __init__(self, folder: Path) -> None:
        self.taken = {_key(path.name) for path in folder.iterdir()} if folder.is_dir() else set()

    def job(self, image: Path, folder: Path, kind: ResultFormat) -> Job:
        for stem in _stems(image):
            pair = f"{stem}{kind.class_ids}", f"{stem}{OVERLAY}{kind.overlay}"
            keys = {_key(name) for name in pair}
            if not keys & self.taken:
                self.taken |= keys
                return Job(image, folder / pair[0], folder / pair[1])
        raise AssertionError("there are infinitely many names")


@dataclass
class _ExistingResults:
    """The results in a folder that came from this model, by the digest of their image."""

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
        """The jobs of the images that have a result: each result is one image's."""
        if not self.by_image:
            return {}
        digests = {image: _digest_or_none(image) for image in images}
        jobs = {}
        for own_name in (True, False):  # of equal images, each first gets what bears its name
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
        """None if the overlay's name is another file's."""
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
    except OSError:  # decoding it will say what is wrong
        return None
