"""Files that are whole or not there."""

import pytest

from segmodels.utils.files import whole_file, write_text


def test_the_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with whole_file(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write_half() -> None:
        with whole_file(path) as scratch:
            scratch.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
