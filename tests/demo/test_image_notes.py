"""What of a file is not used."""

import pytest
from PIL import Image

from segmodels.data.image_io import read_image
from segmodels.demo import strings
from segmodels.demo.image_notes import image_notes


def saved(folder, name, mode="RGB", frames=1, **options):
    images = [Image.new(mode, (5, 4), 10 * n) for n in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(folder / name, **more, **options)
    return folder / name


@pytest.mark.parametrize(
    ("name", "mode", "frames", "expected"),
    [
        ("plain.png", "RGB", 1, ""),
        ("clear.png", "LA", 1, strings.TRANSPARENCY),
        ("moving.gif", "L", 2, strings.FIRST_FRAME),
        ("stack.tif", "L", 3, strings.FIRST_PAGE),
        ("one.tif", "L", 1, ""),
    ],
)
def test_transparency_animation_and_pages_are_mentioned(tmp_path, name, mode, frames, expected):
    path = saved(tmp_path, name, mode, frames)
    assert image_notes(path, read_image(path)) == expected


def test_opaque_alpha_is_not_mentioned(tmp_path):
    path = tmp_path / "opaque.png"
    Image.new("RGBA", (5, 4), (1, 2, 3, 255)).save(path)
    assert image_notes(path, read_image(path)) == ""
