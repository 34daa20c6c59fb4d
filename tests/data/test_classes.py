"""classes.txt, label_colors.txt and lists: what is read and what is refused."""

import os

import pytest

from segmodels.data import classes
from segmodels.data.classes import declared_classes, read_lines
from segmodels.data.labels import DataError


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.txt", "a 1 2 3\nb 1 2 3\n", r"lists the colour \(1, 2, 3\) twice"),
        (
            "classes.txt",
            "a 1 2 3\nb 4 5 6\nc\n",
            "has the line 'c' without a colour; expected `name r g b`",
        ),
        ("classes.txt", "a 1 2 300\n", "has the line 'a 1 2 300'; expected `name r g b`, with r"),
        ("classes.txt", "x" * 6000, "a class name of 6000 characters, 'xxx"),
        ("label_colors.txt", "1 2 ground\n", "has the line '1 2 ground'; expected `r g b name`"),
        ("label_colors.txt", "1 2 300 ground\n", "with r, g and b from 0 to 255"),
        (
            "label_colors.txt",
            "1 2 3 ground\n",
            "has no colour for wall, sky, listed in classes.txt",
        ),
    ],
)
def test_declarations_that_cannot_be_are_refused(tmp_path, file, text, message):
    (tmp_path / "classes.txt").write_text("ground\nwall\nsky\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message):
        declared_classes(tmp_path)


@pytest.mark.parametrize(
    ("file", "line"),
    [("classes.txt", "road {} 1 2"), ("label_colors.txt", "{} 1 2 road"), ("classes.txt", "{}")],
)
def test_numbers_of_6000_digits_are_told_in_a_short_sentence(tmp_path, file, line):
    (tmp_path / file).write_text(line.format("9" * 6000))
    with pytest.raises(DataError, match="expected") as caught:
        declared_classes(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("file", ["classes.txt", "label_colors.txt"])
def test_declarations_are_regular_files(tmp_path, file):
    os.mkfifo(tmp_path / file)
    with pytest.raises(DataError, match="not a regular file"):
        declared_classes(tmp_path)
    (tmp_path / file).unlink()
    (tmp_path / file).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        declared_classes(tmp_path)


def test_a_list_is_bounded_and_may_be_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "MAX_TEXT_BYTES", 1 << 20)
    (tmp_path / "train.txt").write_bytes(b"a\n" * (1 << 19) + b"a")
    with pytest.raises(DataError, match="has more than 1 MiB; expected one name per line"):
        read_lines(tmp_path / "train.txt")
    (tmp_path / "train.txt").write_bytes(b"")
    assert read_lines(tmp_path / "train.txt") == []
    with pytest.raises(DataError, match="there is no file"):
        read_lines(tmp_path / "none.txt")
