"""What the server remembers of a visitor's comparison: where the uploaded picture is, and the class
maps, packed. No more than a few hundred kilobytes, and no picture."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segmodels.data.image_io import PictureError, read_image
from segmodels.inference.comparison import Failure, Network, Result
from segmodels.inference.results import ClassPicture

Lookup = Callable[[str], Network]  # source -> network


@dataclass(frozen=True)
class Packed:
    """A `Result` without its picture and its network, or a `Failure`'s reason.

    class_map: compressed bytes of (height, width) = size.
    """

    source: str
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    class_map: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class Visit:
    """A comparison that was made.

    digest: of the picture's file. path: where it is, until it is deleted.
    """

    digest: str
    path: str
    scene: str
    packed: tuple[Packed, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Of the networks that were asked."""
        return tuple(packed.source for packed in self.packed)

    @property
    def asked(self) -> tuple[str, str, tuple[str, ...]]:
        """The same for the same picture, scene and networks."""
        return self.digest, self.scene, self.sources

    @property
    def answered(self) -> bool:
        """Whether any network gave an answer."""
        return not all(packed.reason for packed in self.packed)

    def image(self) -> Image.Image:
        """The picture, RGB, read anew. PictureError if it has been deleted."""
        if not Path(self.path).is_file():
            raise PictureError(
                f"{Path(self.path).name} is no longer on this server: choose it again"
            )
        return read_image(self.path)

    def answers(self, network: Lookup) -> list[Result | Failure]:
        """The answers again, over the picture read anew. network: gives the one of a source."""
        image = self.image()
        return [_unpacked(packed, network(packed.source), image) for packed in self.packed]


def remember(digest: str, path: str, scene: str, answers: Sequence[Result | Failure]) -> Visit:
    """The visit, to be kept in the session."""
    return Visit(digest, path, scene, tuple(_pack(answer) for answer in answers))


def _pack(answer: Result | Failure) -> Packed:
    if isinstance(answer, Failure):
        return Packed(answer.network.source, reason=answer.reason)
    ids = answer.segmentation.class_map
    return Packed(
        source=answer.network.source,
        seconds=answer.seconds,
        size=(ids.shape[0], ids.shape[1]),
        class_map=zlib.compress(ids.tobytes(), 1),
    )


def _unpacked(packed: Packed, network: Network, image: Image.Image) -> Result | Failure:
    if packed.reason:
        return Failure(network, packed.reason)
    ids = np.frombuffer(zlib.decompress(packed.class_map), np.uint8).reshape(packed.size)
    model = network.model
    segmentation = ClassPicture(image, ids, model.class_names, model.palette)
    return Result(network, segmentation, packed.seconds)


def digest_of(path: str | Path) -> str:
    """Of the file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
