"""Notes on what is ignored in an image file: transparency, further frames or pages, bit depth."""

from pathlib import Path

from PIL import Image

from segmodels.data._untrusted_images import MAX_PIXELS, open_image
from segmodels.data.image_io import PictureError, note_of, page_count
from segmodels.demo import strings

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # formats whose frames form an animation
CHECKED_PIXELS = 10_000_000  # larger images are not searched for transparent pixels


def image_notes(path: Path, decoded: Image.Image) -> str:
    """Describe what was dropped or changed when a file was read; "" if nothing was.

    Args:
        path: The image file.
        decoded: The image returned by `read_image`.
    """
    notes = [note_of(decoded) or ""]
    try:
        with open_image(path, MAX_PIXELS) as image:
            if image.format in ANIMATED and getattr(image, "is_animated", False):
                notes.append(strings.FIRST_FRAME)
            if _is_transparent(image):
                notes.append(strings.TRANSPARENCY)
        if page_count(path) > 1:
            notes.append(strings.FIRST_PAGE)
    except (PictureError, OSError, ValueError, SyntaxError):
        pass  # the image itself was read; the notes are optional
    return " ".join(filter(None, notes))


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    if image.width * image.height > CHECKED_PIXELS:
        return True
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(lowest, int | float) and lowest < 255
