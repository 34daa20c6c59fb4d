"""Which files of a folder are images."""

from PIL import Image

from segmodels.data import image_folder
from segmodels.data.image_folder import list_images


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_files_are_sorted_by_name_into_images_and_others(tmp_path):
    touch(
        tmp_path, "b.png", "a.JPG", "scan", "c.npy", ".hidden.png", "Thumbs.db", "a.json", "d.cr2"
    )
    (tmp_path / "folder.png").mkdir()
    listing = list_images(tmp_path)
    assert [path.name for path in listing.images] == ["a.JPG", "b.png", "c.npy", "scan"]
    assert [path.name for path in listing.ignored] == [".hidden.png", "Thumbs.db", "a.json"]
    assert [path.name for path in listing.unsupported] == ["d.cr2"]


def test_notes_count_ignored_and_unsupported_files(tmp_path):
    touch(tmp_path, "a.txt", "b.cr2", "c.CR2", "d.dng")
    assert list_images(tmp_path).notes(tmp_path) == [
        f"{tmp_path}: ignored 1 file not in an image format (a.txt)",
        f"{tmp_path}: skipped 3 files in unsupported formats (2 .cr2, 1 .dng)",
    ]


def test_heic_without_pillow_heif_is_unsupported_with_a_remedy(tmp_path, monkeypatch):
    touch(tmp_path, "a.heic")
    monkeypatch.setattr(image_folder, "has_heif", lambda: False)
    known = {k: v for k, v in Image.registered_extensions().items() if v != "HEIF"}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    listing = list_images(tmp_path)
    assert listing.images == []
    (note,) = listing.notes(tmp_path)
    assert "skipped 1 file in unsupported formats (1 .heic); HEIC (HEIF) images require" in note
