"""Sessions: what the server keeps of a visitor's comparison.

A session holds the path of the uploaded image and the compressed class maps, at most a few hundred
kilobytes, but not the image itself.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segmodels.data.image_io import PictureError, read_image
from segmodels.inference.comparison import ModelFailure, ModelResult, ServedModel
from segmodels.inference.results import LabeledImage

Lookup = Callable[[str], ServedModel]  # source -> network


class ExpiredError(PictureError):
    """The image of a session has been deleted."""


@dataclass(frozen=True)
class StoredAnswer:
    """A `ModelResult` without its image and its network, or a `ModelFailure`'s reason.

    Attributes:
        source: Source of the network.
        seconds: Run time.
        size: (height, width) of the class map.
        class_map: The zlib-compressed bytes of the class map.
        reason: The reason of a failure; "" for a result.
    """

    source: str
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    class_map: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class Session:
    """A completed comparison.

    Attributes:
        digest: Digest of the image file.
        path: Path of the image file, which is deleted after a while.
        scene: Name of the scene.
        stored: The answers of the networks.
    """

    digest: str
    path: str
    scene: str
    stored: tuple[StoredAnswer, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of the networks that were run."""
        return tuple(answer.source for answer in self.stored)

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """Key that is equal for the same image, scene and networks."""
        return self.digest, self.scene, self.sources

    @property
    def has_results(self) -> bool:
        """Whether any network succeeded."""
        return not all(answer.reason for answer in self.stored)

    def image(self) -> Image.Image:
        """Read the RGB image again.

        Raises:
            ExpiredError: If the image has been deleted.
        """
        try:
            return read_image(self.path)
        except PictureError:
            if Path(self.path).is_file():
                raise
            raise ExpiredError(f"{Path(self.path).name} has expired") from None

    def answers(self, network: Lookup) -> list[ModelResult | ModelFailure]:
        """Restore the answers, reading the image again.

        Args:
            network: Returns the network of a source.
        """
        image = self.image()
        return [_restored(answer, network(answer.source), image) for answer in self.stored]


def new_session(
    digest: str, path: str, scene: str, answers: Sequence[ModelResult | ModelFailure]
) -> Session:
    """Create a session from the answers of the networks."""
    return Session(digest, path, scene, tuple(_stored_answer(answer) for answer in answers))


def _stored_answer(answer: ModelResult | ModelFailure) -> StoredAnswer:
    if isinstance(answer, ModelFailure):
        return StoredAnswer(answer.network.source, reason=answer.reason)
    ids = answer.segmentation.class_map
    return StoredAnswer(
        source=answer.network.source,
        seconds=answer.seconds,
        size=(ids.shape[0], ids.shape[1]),
        class_map=zlib.compress(ids.tobytes(), 1),
    )


def _restored(
    stored: StoredAnswer, network: ServedModel, image: Image.Image
) -> ModelResult | ModelFailure:
    if stored.reason:
        return ModelFailure(network, stored.reason)
    ids = np.frombuffer(zlib.decompress(stored.class_map), np.uint8).reshape(stored.size)
    model = network.model
    segmentation = LabeledImage(image, ids, model.class_names, model.palette)
    return ModelResult(network, segmentation, stored.seconds)
