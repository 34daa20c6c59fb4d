"""Files that are written completely or not at all."""

import os

import pytest

from segmodels.utils.files import TEMPORARY_FILES, atomic_write, write_text


def test_the_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with atomic_write(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
        assert list(tmp_path.glob(TEMPORARY_FILES)) == [scratch]
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_write(path) as scratch:
            scratch.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_must_not_be_replaced_is_not(tmp_path, monkeypatch, hard_links):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:  # as on FAT
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "notes.txt"
    with atomic_write(path, replace=False) as scratch:
        scratch.write_text("first")

    def write_again() -> None:
        with atomic_write(path, replace=False) as scratch:
            scratch.write_text("second")

    with pytest.raises(FileExistsError):
        write_again()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("街" * 83 + "a.txt")  # 83 * 3 + 5 = 254 bytes
    write_text(path, "long")
    assert path.read_text() == "long"
