import numpy as np
import pytest
from PIL import Image

from segmodels.cli.main import main
from segmodels.data import validation
from segmodels.data.dataset import DataError, open_data, read_split
from segmodels.data.validation import changed_files, check_split, check_splits
from tests.support.datasets import write_camvid


def test_a_report_counts_pixels_sizes_and_images(camvid):
    data = open_data(camvid, "train")
    found = check_split(data)
    for index in range(6):
        counts = np.bincount(data.target(index).ravel(), minlength=256)
        assert found.counts[index].tolist() == [*counts[:3], counts[255]]
    assert found.sizes == {(48, 40): 6}
    assert len(found.digests) == 12
    assert found.errors == []


@pytest.fixture
def broken(camvid):
    """Six errors in "train" and one in "val"; the files that have them."""
    files = [camvid / "train" / f"{number:03}.png" for number in range(6)]
    labels = [camvid / "trainannot" / file.name for file in files]
    files[0].write_bytes(files[0].read_bytes()[:500])
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(labels[1])
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(labels[2])
    labels[3].write_text("no image")
    labels[4].unlink()
    files[5].unlink()
    (camvid / "val" / "000.png").write_bytes(b"")
    return camvid


WORDS = [
    "005 has no image in",
    "004 has no label in",
    "train/000.png: 000.png is damaged",
    "trainannot/001.png has ids [9]; expected 0 to 2",
    "trainannot/002.png is 24 x 20 pixels, but its image",
    "trainannot/003.png cannot be read as a label",
    "val/000.png: 000.png is empty",
]


def test_all_errors_are_found_at_once_and_named(broken):
    with pytest.raises(DataError) as caught:
        check_splits(broken, ("train", "val", "test"))
    first, *lines = str(caught.value).splitlines()
    assert first == "7 errors:"
    for line, words in zip(lines, WORDS, strict=True):
        assert words in line


def test_files_with_errors_are_in_no_count(broken):
    found = check_split(*read_split(broken, "train"))
    assert found.counts.shape == (0, 4)
    assert len(found.errors) == 6


def test_more_than_ten_errors_are_ten_and_a_number(tmp_path):
    root = write_camvid(tmp_path / "d", train=13)
    for file in (root / "trainannot").iterdir():
        file.write_text("no image")
    with pytest.raises(DataError) as caught:
        check_splits(root, ("train",))
    lines = str(caught.value).splitlines()
    assert lines[0] == "13 errors:"
    assert len(lines) == 12
    assert lines[-1].strip() == "and 3 more"


def test_changed_new_and_missing_files_are_told_apart_from_the_same():
    before = {"a": "1", "b": "2", "c": "3"}
    assert changed_files(before, {"a": "1", "b": "9", "d": "4"}) == ["b", "c", "d"]
    assert changed_files(before, dict(before)) == []


def test_a_digest_follows_the_bytes(camvid):
    before = check_split(open_data(camvid, "val")).digests
    label = camvid / "valannot" / "001.png"
    ids = np.array(Image.open(label))
    ids[5, 5] = (ids[5, 5] + 1) % 3
    Image.fromarray(ids).save(label)
    after = check_split(open_data(camvid, "val")).digests
    assert changed_files(before, after) == ["valannot/001.png"]


def test_one_thread_does(camvid, monkeypatch):
    several = check_split(open_data(camvid, "train"))
    monkeypatch.setattr(validation, "MAX_THREADS", 1)
    alone = check_split(open_data(camvid, "train"))
    assert (alone.counts == several.counts).all()
    assert alone.digests == several.digests


# ---- segmodels data check ----


def test_check_says_what_a_folder_holds(camvid, capsys):
    assert main(["data", "check", str(camvid)]) == 0
    printed = capsys.readouterr().out
    assert f"{camvid}: SegNet's CamVid, labels: class ids" in printed
    train = next(line for line in printed.splitlines() if line.startswith("train"))
    assert train.split() == ["train", "6", "2.50", "%", "48", "x", "40"]  # a row of 40 is void
    data = open_data(camvid, "test")
    ids = np.stack([data.target(index) for index in range(2)])
    share = f"{100 * (ids == 1).sum() / (ids != 255).sum():.2f}"
    wall = next(line for line in printed.splitlines() if line.split()[1:2] == ["wall"])
    assert wall.split()[-2:] == [share, "2"]
    assert "train     8-bit integers from " in printed
    # Its void, the id after the last class, is meant in CamVid's own classes alone.
    assert printed.endswith("no errors, 2 warnings\n")


def test_check_tells_every_error_and_fails(broken, capsys):
    assert main(["data", "check", str(broken)]) == 1
    printed = capsys.readouterr().err
    assert "7 errors:" in printed
    assert all(words in printed for words in WORDS)


def test_check_tells_images_that_two_splits_share(camvid, capsys):
    twin = (camvid / "train" / "003.png").read_bytes()
    (camvid / "test" / "001.png").write_bytes(twin)
    assert main(["data", "check", str(camvid)]) == 0
    assert "note: 'train' and 'test' share 1 image (train/003.png)" in (capsys.readouterr().out)


@pytest.mark.parametrize("missing", ["folder", "splits", "train", "classes"])
def test_check_tells_what_is_missing(missing, camvid, tmp_path, capsys):
    folder, words = {
        "folder": (tmp_path / "nowhere", "there is no folder"),
        "splits": (tmp_path / "empty", "has no split 'train'"),
        "train": (write_camvid(tmp_path / "d", test=1), "there is no split 'train'"),
        "classes": (camvid, "has no classes.txt"),
    }[missing]
    (tmp_path / "empty").mkdir()
    if missing == "classes":
        (camvid / "classes.txt").unlink()
    assert main(["data", "check", str(folder)]) == 1
    printed = capsys.readouterr().err
    assert printed.count(words) == 1
