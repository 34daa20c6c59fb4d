"""A model card's picture: what the network makes of pictures that may be shown."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segmodels.data.image_io import resize
from segmodels.evaluation.qualitative import CELL, draw_grid
from segmodels.inference.segmenter import Segmenter
from segmodels.utils.files import whole_file

COLUMNS = ("picture", "classes", "confidence (dark: unsure)")
MAX_BYTES = 100_000  # of the file; a card is read over the network


def showcase(segmenter: Segmenter, pictures: Sequence[Path], credit: str = "") -> Image.Image:
    """A row for each picture: itself, the classes over it, and the winning class's probability as
    grey, 0.2 and less being black. RGB, with a legend; credit: a last line, on their origin."""
    rows = []
    for path in pictures:
        result = segmenter(path)
        grey = ((result.confidence - 0.2).clip(0, 0.8) / 0.8 * 255).astype(np.uint8)
        panels = [
            Image.fromarray(resize(result.picture, CELL)),
            Image.fromarray(resize(np.array(result.overlay(0.7)), CELL)),
            Image.fromarray(resize(grey, CELL)).convert("RGB"),
        ]
        rows.append((path.name, panels))
    return draw_grid(COLUMNS, rows, segmenter.model, credit)


def write_showcase(image: Image.Image, path: Path) -> None:
    """A JPEG of at most MAX_BYTES, or of quality 40; whole or not there."""
    for quality in range(88, 39, -8):
        buffer = BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    with whole_file(path) as scratch:
        scratch.write_bytes(buffer.getvalue())
