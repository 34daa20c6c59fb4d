"""TIFF stacks: files with several full-size pages."""

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _tiff
from segmodels.data._untrusted_images import PictureError


def full_size_pages(image: TiffImageFile) -> list[int]:
    """Frame numbers of the pages, without thumbnails, pyramid levels and masks.

    Raises:
        PictureError: If a page cannot be read.
    """
    try:
        return list(_tiff.pages(image)) or [0]
    except Exception as error:  # Pillow raises various types for damaged files
        raise PictureError(f"a page of the TIFF cannot be read: {error}") from error


def seek_page(image: Image.Image, page: int, name: str) -> None:
    """Seek to a full-size page.

    Args:
        image: An open image; formats other than TIFF have only page 0.
        page: Page number, counted from 0.
        name: For messages.

    Raises:
        PictureError: If there is no such page.
    """
    pages = full_size_pages(image) if isinstance(image, TiffImageFile) else [0]
    if page >= len(pages):
        raise PictureError(f"{name} has no page {page}; expected 0 to {len(pages) - 1}")
    image.seek(pages[page])
