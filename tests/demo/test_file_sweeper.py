"""Files that visits leave behind are deleted by their age."""

import os
import time

import pytest

from segmodels.demo.file_sweeper import FileSweeper


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "street.jpg").write_bytes(b"example")
    return tmp_path


def aged(monkeypatch, seconds):
    """The clock, so many seconds later."""
    now = time.time()
    monkeypatch.setattr("segmodels.demo.file_sweeper.time.time", lambda: now + seconds)


def test_every_old_file_is_deleted_whoever_wrote_it_and_empty_folders_with_it(folder, monkeypatch):
    sweeper = FileSweeper(folder, 600)
    for name in ("upload.png", "deep/er/result.png", "tmpab12"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert sweeper.sweep() == set()  # they are new
    aged(monkeypatch, 599)
    assert sweeper.sweep() == set()
    aged(monkeypatch, 601)
    assert len(sweeper.sweep()) == 3
    assert [path.name for path in folder.rglob("*")] == ["examples", "street.jpg"]


def test_the_files_of_the_page_itself_stay(folder, monkeypatch):
    sweeper = FileSweeper(folder, 600)
    aged(monkeypatch, 1e6)
    assert sweeper.sweep() == set()
    assert (folder / "examples" / "street.jpg").read_bytes() == b"example"


def test_the_age_counts_from_the_last_use_and_not_from_a_copied_time(folder, monkeypatch):
    sweeper = FileSweeper(folder, 600)
    copy = folder / "copy.png"
    copy.write_bytes(b"x")
    os.utime(copy, (0, 0))  # as a copy that keeps its original's time
    assert sweeper.sweep() == set()
    assert copy.exists()


def test_a_folder_in_use_stays(folder, monkeypatch):
    sweeper = FileSweeper(folder, 600)
    (folder / "a").mkdir()
    (folder / "a" / "old.png").write_bytes(b"x")
    later = time.time() + 601
    (folder / "a" / "new.png").write_bytes(b"x")
    os.utime(folder / "a" / "new.png", (later, later))
    aged(monkeypatch, 601)
    assert sweeper.sweep() == {str(folder / "a" / "old.png")}
    assert (folder / "a" / "new.png").exists()


def test_what_is_stored_is_counted(folder):
    before = FileSweeper(folder, 600).stored_bytes()
    (folder / "upload.png").write_bytes(bytes(1000))
    assert FileSweeper(folder, 600).stored_bytes() == before + 1000
    assert FileSweeper(folder / "missing", 600).stored_bytes() == 0
