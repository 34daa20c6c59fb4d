import numpy as np
import pytest
from PIL import Image

from segmodels.data.dataset import DataError, has_split, open_data
from segmodels.data.validation import check_split
from tests.support.datasets import CLASS_NAMES, synthetic_pair


@pytest.fixture(params=["camvid", "msrc"])
def folder(request):
    return request.getfixturevalue(request.param)


def first_files(folder):
    """The picture and the label of the first training sample."""
    sample = open_data(folder, "train").samples[0]
    return sample.image, sample.label


def test_both_layouts_give_the_same_pairs(camvid, msrc):
    for seed in range(6):
        picture, ids = synthetic_pair(seed, void_id=255)
        for data in (open_data(camvid, "train"), open_data(str(msrc), "train")):
            assert data.class_names == CLASS_NAMES
            assert len(data) == 6
            np.testing.assert_array_equal(data.pair(seed)[0], picture)
            np.testing.assert_array_equal(data.pair(seed)[1], ids)


def test_splits_are_their_own(folder):
    assert [len(open_data(folder, split)) for split in ("train", "val", "test")] == [6, 2, 2]
    assert has_split(folder, "val")
    assert not has_split(folder, "extra")
    with pytest.raises(DataError, match=r"no split 'extra': expected extra/ .* found classes.t"):
        open_data(folder, "extra")


def test_picture_and_label_match_by_stem_whatever_the_suffix(folder):
    picture, _ = first_files(folder)
    Image.open(picture).save(picture.with_suffix(".bmp"))
    picture.unlink()
    (picture.parent / ".DS_Store").touch()
    assert open_data(folder, "train").samples[0].image.suffix == ".bmp"


def test_two_pictures_of_one_stem_are_refused(folder):
    picture, _ = first_files(folder)
    Image.open(picture).save(picture.with_suffix(".bmp"))
    with pytest.raises(DataError, match=rf"{picture.stem}.bmp and {picture.stem}.png; remove one"):
        open_data(folder, "train")


@pytest.mark.parametrize("kind", [0, 1])
def test_a_missing_partner_is_named(folder, kind):
    file = first_files(folder)[kind]
    file.unlink()
    message = rf"^{file.stem} has no {('image', 'label')[kind]} in {file.parent}$"
    with pytest.raises(DataError, match=message):
        open_data(folder, "train")


def test_an_unknown_id_is_named_with_its_file(folder):
    _, label = first_files(folder)
    ids = np.zeros((40, 48), np.uint8)
    ids[3, 4], ids[5, 6] = 9, 77
    Image.fromarray(ids).save(label)
    with pytest.raises(DataError, match=rf"{label.name} has ids \[9, 77\]; expected 0 to 2 .* 255"):
        open_data(folder, "train").pair(0)


def test_the_id_after_the_last_class_is_void_in_segnets_layout_only(camvid, msrc):
    for folder in (camvid, msrc):
        Image.fromarray(np.full((40, 48), 3, np.uint8)).save(first_files(folder)[1])
    assert (open_data(camvid, "train").target(0) == 255).all()
    with pytest.raises(DataError, match=r"has ids \[3\]"):
        open_data(msrc, "train").target(0)


def test_sizes_that_differ_are_named(folder):
    _, label = first_files(folder)
    Image.new("L", (40, 48)).save(label)
    with pytest.raises(DataError, match=r"is 40 x 48 pixels, but its image .* is 48 x 40; the"):
        open_data(folder, "train").pair(0)


def test_a_label_in_colours_is_refused_unless_they_are_declared(folder):
    _, label = first_files(folder)
    Image.new("RGB", (48, 40), (9, 8, 7)).save(label)
    with pytest.raises(DataError, match=rf"{label} is a colour image, but no colours are dec"):
        open_data(folder, "train").target(0)


def test_grey_saved_as_rgb_is_grey(folder):
    _, label = first_files(folder)
    ids = open_data(folder, "train").target(0)
    Image.fromarray(ids).convert("RGB").save(label)
    np.testing.assert_array_equal(open_data(folder, "train").target(0), ids)


def test_a_one_bit_label_has_the_ids_0_and_1(folder):
    _, label = first_files(folder)
    bits = np.zeros((40, 48), bool)
    bits[:, 7] = True
    Image.fromarray(bits).save(label)
    assert open_data(folder, "train").target(0).tolist() == bits.astype(int).tolist()


def test_damaged_files_are_named(folder):
    picture, label = first_files(folder)
    for file in (picture, label):
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"{picture}: "):
        open_data(folder, "train").image(0)
    with pytest.raises(DataError, match=rf"{label} cannot be read as a label"):
        open_data(folder, "train").target(0)


def test_an_empty_split_is_refused(camvid, msrc):
    for file in [*(camvid / "val").iterdir(), *(camvid / "valannot").iterdir()]:
        file.unlink()
    (msrc / "val.txt").write_text("\n\n")
    for folder in (camvid, msrc):
        with pytest.raises(DataError, match=r"split 'val' of .* is empty"):
            open_data(folder, "val")


def test_a_missing_folder_is_named(camvid, msrc):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        open_data(camvid / "nowhere", "train")
    (msrc / "labels").rename(msrc / "annotations")
    with pytest.raises(DataError, match=r"there is no folder .*labels"):
        open_data(msrc, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no classes.txt; list the class names in it, one per line"),
        (b"\n \n", "has 0 class names; expected 1 to 255"),
        (b"a\n" * 256, "has 256 class names; expected 1 to 255"),
        (b"sky\nwall\nsky\n", "has duplicate class names: sky;"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_class_names_that_cannot_be_are_refused(folder, content, message):
    (folder / "classes.txt").unlink()
    if content is not None:
        (folder / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_data(folder, "train")


def test_class_names_are_utf_8_and_blank_lines_none(folder):
    (folder / "classes.txt").write_bytes("\ufeffBöden\r\nwall \r\n\r\nsky".encode())
    assert open_data(folder, "train").class_names == ["Böden", "wall", "sky"]


def test_stems_may_have_spaces(msrc):
    for file in first_files(msrc):
        file.rename(file.with_stem("a picture"))
    (msrc / "train.txt").write_text("a picture\n")
    assert open_data(msrc, "train").pair(0)[1].shape == (40, 48)


def test_class_frequencies_by_hand(camvid):
    # Picture 0: 480 pixels of class 0, 480 of 1, the other 960 void; picture 1: 1440 of 0, 480 of
    # 2. Class 0: 1920 of 960 + 1920 pixels = 2 / 3; class 1: 480 of 960; class 2: 480 of 1920.
    for split in ("train", "trainannot"):
        for file in sorted((camvid / split).iterdir())[2:]:
            file.unlink()
    first = np.repeat(np.uint8([0, 1, 3, 255]), 10)[:, None].repeat(48, 1)
    second = np.repeat(np.uint8([0, 0, 0, 2]), 10)[:, None].repeat(48, 1)
    for sample, ids in zip(open_data(camvid, "train").samples, (first, second), strict=True):
        Image.fromarray(ids).save(sample.label)
    frequencies = check_split(open_data(camvid, "train")).frequencies
    np.testing.assert_allclose(frequencies, [2 / 3, 1 / 2, 1 / 4])


def test_the_frequency_of_an_absent_class_is_nan(camvid):
    (camvid / "classes.txt").write_text("ground\nwall\nsky\nunicorn\n")
    for sample in open_data(camvid, "train").samples:
        ids = np.array(Image.open(sample.label))
        Image.fromarray(np.where(ids == 3, 255, ids).astype(np.uint8)).save(sample.label)
    assert np.isnan(check_split(open_data(camvid, "train")).frequencies).tolist() == [0, 0, 0, 1]
