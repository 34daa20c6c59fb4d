"""PASCAL VOC's layout, labels of colours, masks of 0 and 255, and the names of files."""

import os
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from segmodels.data.dataset import DataError, has_split, open_data
from segmodels.data.layouts import notes_of
from segmodels.data.validation import check_split
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from segmodels.utils.palette import voc_color
from tests.support.datasets import CLASS_NAMES, synthetic_pair, write_camvid, write_msrc

LABEL_COLORS = {"ground": (128, 64, 128), "wall": (0, 0, 192), "sky": (128, 128, 128)}


def expected_ids(seed):
    return synthetic_pair(seed, void_id=255)[1]


@pytest.fixture
def voc(tmp_path):
    """6 pictures, 4 of them in "train" and 2 in "val", with palette labels of ids 0 to 2."""
    lists = tmp_path / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir()
    palette = bytes(value for index in range(256) for value in voc_color(index))
    for number in range(6):
        picture, ids = synthetic_pair(number, void_id=255)
        Image.fromarray(picture).save(root / "JPEGImages" / f"2007_{number:06}.jpg", quality=95)
        label = Image.fromarray(ids)
        label.putpalette(palette)
        label.save(root / "SegmentationClass" / f"2007_{number:06}.png")
    stems = [f"2007_{number:06}" for number in range(6)]
    for split, part in (("train", stems[:4]), ("val", stems[4:]), ("trainval", stems)):
        (lists / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


# ---- PASCAL VOC ----


def test_vocs_layout_is_recognised_with_its_own_classes(voc):
    data = open_data(voc, "train")
    assert (len(data), len(open_data(voc, "val")), len(open_data(voc, "trainval"))) == (4, 2, 6)
    assert not has_split(voc, "test")
    assert len(data.class_names) == 21
    assert (data.class_names[0], data.class_names[15]) == ("background", "person")
    for seed in range(4):
        np.testing.assert_array_equal(data.target(seed), expected_ids(seed))


def test_vocs_layout_takes_other_classes(voc):
    (voc / "classes.txt").write_text("\n".join(CLASS_NAMES))
    data = open_data(voc, "val")
    assert data.class_names == CLASS_NAMES
    np.testing.assert_array_equal(data.target(0), expected_ids(4))


def test_vocs_labels_may_be_rgb_in_its_colours(voc):
    for file in (voc / "SegmentationClass").iterdir():
        image = Image.open(file)
        rgb = np.array(image.convert("RGB"))
        rgb[np.array(image) == 255] = (224, 224, 192)  # its border
        Image.fromarray(rgb).save(file)
    np.testing.assert_array_equal(open_data(voc, "train").target(2), expected_ids(2))


def test_a_voc_picture_without_a_label_is_named(voc):
    (voc / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(DataError, match=r"^2007_000001 has no label in .*SegmentationClass$"):
        open_data(voc, "train")
    assert len(open_data(voc, "val")) == 2


def test_vocs_layout_trains(voc, tmp_path, capsys):
    recipe = TrainingConfig(
        "unet", str(voc), epochs=1, batch_size=2, crop=(32, 32), base_channels=2
    )
    train(recipe, tmp_path / "out")
    assert "warning: no label of 'train' contains bird, boat" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").exists()


# ---- labels of colours ----


def write_colors(root, split="train", void=(0, 0, 0)):
    """Label files as pictures of LABEL_COLORS."""
    colors = np.zeros((256, 3), np.uint8)
    colors[:3], colors[[3, 255]] = list(LABEL_COLORS.values()), void
    folder = root / f"{split}annot"
    for file in folder.iterdir():
        Image.fromarray(colors[np.array(Image.open(file))]).save(file)
    return sorted(folder.iterdir())


def declare(root, in_classes, void=("void", (0, 0, 0))):
    lines = [*LABEL_COLORS.items(), void]
    if in_classes:
        text = "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in lines)
        (root / "classes.txt").write_text(text)
    else:
        text = "".join(f"{r} {g} {b}\t\t{name}\n" for name, (r, g, b) in lines)
        (root / "label_colors.txt").write_text(text)


@pytest.fixture(params=["classes.txt", "label_colors.txt", "both"])
def colored(request, tmp_path):
    root = write_camvid(tmp_path / "colored", train=3)
    write_colors(root)
    if request.param == "label_colors.txt":
        (root / "classes.txt").unlink()
    declare(root, in_classes=request.param == "classes.txt")
    return root


def test_colours_are_ids_and_void_is_no_class(colored):
    data = open_data(colored, "train")
    assert data.class_names == CLASS_NAMES
    for seed in range(3):
        np.testing.assert_array_equal(data.target(seed), expected_ids(seed))


def test_the_order_of_classes_txt_decides_the_ids(colored):
    (colored / "label_colors.txt").write_text(
        "128 64 128 ground\n0 0 192 wall\n128 128 128 sky\n0 0 0 Void\n"
    )
    (colored / "classes.txt").write_text("sky\nwall\nground\n")
    data = open_data(colored, "train")
    swapped = np.array([2, 1, 0], np.uint8)[expected_ids(0).clip(max=2)]
    known = data.target(0) != 255
    np.testing.assert_array_equal(data.target(0)[known], swapped[known])
    assert known.sum() == 39 * 48


def test_palette_pictures_in_the_declared_colours_are_read_by_colour(colored):
    label = open_data(colored, "train").samples[0].label
    Image.open(label).quantize(16).save(label)
    np.testing.assert_array_equal(open_data(colored, "train").target(0), expected_ids(0))


def test_an_undeclared_colour_is_named_with_its_place(colored):
    label = open_data(colored, "train").samples[1].label
    pixels = np.array(Image.open(label))
    pixels[7, 5], pixels[9, 9] = (1, 2, 3), (3, 2, 1)
    Image.fromarray(pixels).save(label)
    message = rf"{label} has the undeclared colour \(1, 2, 3\) at x = 5, y = 7 \(2 pixels .*; decl"
    with pytest.raises(DataError, match=message):
        open_data(colored, "train").target(1)


def test_camvids_own_names_of_labels_match(colored):
    for file in list((colored / "trainannot").iterdir()):
        file.rename(file.with_stem(f"{file.stem}_L"))
    data = open_data(colored, "train")
    assert [sample.label.stem for sample in data.samples] == ["000_L", "001_L", "002_L"]


# ---- masks of 0 and 255 ----


@pytest.fixture
def masks(tmp_path):
    """Of the walls; without classes.txt."""
    root = write_msrc(tmp_path / "masks", train=3, val=1)
    for file in (root / "labels").iterdir():
        wall = np.array(Image.open(file)) == 1
        Image.fromarray((255 * wall).astype(np.uint8)).save(file.with_stem(f"{file.stem}_mask"))
        file.unlink()
    (root / "classes.txt").unlink()
    return root


def test_masks_of_0_and_255_are_background_and_foreground(masks):
    data = open_data(masks, "train")
    assert data.class_names == ["background", "foreground"]
    assert data.encoding.binary
    for seed in range(3):
        np.testing.assert_array_equal(data.target(seed), expected_ids(seed) == 1)


def test_masks_keep_the_names_of_classes_txt(masks):
    (masks / "classes.txt").write_text("tissue\ncell\n")
    data = open_data(masks, "val")
    assert data.class_names == ["tissue", "cell"]
    assert set(np.unique(data.target(0))) == {0, 1}


def test_masks_saved_as_rgb_are_masks(masks):
    for file in (masks / "labels").iterdir():
        Image.open(file).convert("RGB").save(file)
    np.testing.assert_array_equal(open_data(masks, "train").target(0), expected_ids(0) == 1)


def test_a_value_between_in_a_mask_is_named(masks):
    label = open_data(masks, "val").samples[0].label
    pixels = np.array(Image.open(label))
    pixels[3, 3] = 7
    Image.fromarray(pixels).save(label)
    with pytest.raises(DataError, match=rf"{label} has ids \[7\]; expected only 0 and 255"):
        open_data(masks, "val").target(0)


def test_two_classes_with_ids_stay_ids_with_void(masks):
    (masks / "classes.txt").write_text("tissue\ncell\n")
    label = open_data(masks, "train").samples[1].label
    Image.fromarray(np.full((40, 48), 1, np.uint8)).save(label)  # one label of ids tells
    data = open_data(masks, "train")
    assert not data.encoding.binary
    assert set(np.unique(data.target(0))) == {0, 255}
    assert set(np.unique(open_data(masks, "val").target(0))) == {0, 255}


# ---- lists ----


def test_a_stem_that_is_listed_twice_is_named(msrc):
    (msrc / "val.txt").write_text("val_0\nval_1\nval_0\n")
    with pytest.raises(DataError, match="val_0 is listed 2 times"):
        open_data(msrc, "val")


@pytest.mark.parametrize(
    "line",
    [
        "{0}",
        "{0}.png",
        "images/{0}.png",
        "/images/{0}.png /labels/{0}.png",
        "images\\{0}.png labels\\{0}_mask.png",
    ],
)
def test_lines_may_be_stems_files_or_pairs(msrc, line):
    expected = [sample.image.stem for sample in open_data(msrc, "train").samples]
    (msrc / "train.txt").write_text("".join(line.format(stem) + "\n" for stem in expected))
    assert [sample.image.stem for sample in open_data(msrc, "train").samples] == expected


def test_a_stem_with_a_dot_is_not_cut(msrc):
    for file in (msrc / "images" / "val_0.png", msrc / "labels" / "val_0.png"):
        file.rename(file.with_name("a.b.png"))
    (msrc / "val.txt").write_text("a.b\n")
    assert open_data(msrc, "val").samples[0].image.name == "a.b.png"


def test_a_list_that_names_no_image_says_what_is_expected(msrc):
    (msrc / "val.txt").write_text("a,1\nb,2\n")
    with pytest.raises(DataError, match=r"the list does not match any image .*'a,1'; expected a s"):
        open_data(msrc, "val")


def test_a_pair_of_two_names_is_refused(msrc):
    (msrc / "val.txt").write_text("val_0\nimages/val_1.png labels/val_0.png\n")
    with pytest.raises(DataError, match=r"'images/val_1.png labels/val_0.png', in which the stems"):
        open_data(msrc, "val")


# ---- names of files ----


def test_composed_and_decomposed_names_are_one(msrc):
    composed, decomposed = (normalize(form, "Münch") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for image, label, line in (
        (composed, decomposed, decomposed),
        (decomposed, composed, composed),
    ):
        for folder, name in (("images", image), ("labels", label)):
            file = next(f for f in (msrc / folder).iterdir() if f.stem.startswith(("val_0", "M")))
            file.rename(file.with_stem(name))
        (msrc / "val.txt").write_text(f"{line}\n", encoding="utf-8")
        assert open_data(msrc, "val").pair(0)[1].shape == (40, 48)


def test_files_that_are_no_images_are_ignored_with_a_note(camvid):
    folder = camvid / "train"
    for name in ("Thumbs.db", "desktop.ini", "._000.png", ".DS_Store", "000.json"):
        (folder / name).write_bytes(b"\xd0\xcf")
    data = open_data(camvid, "train")
    assert len(data) == 6
    assert notes_of(data.layout) == [
        f"{folder}: ignored 5 files not in an image format (.DS_Store, ._000.png, 000.json, ...)"
    ]


def test_formats_that_are_not_read_are_counted_and_named(camvid):
    folder = camvid / "train"
    for name in ("a.cr2", "b.CR2", "c.dng"):
        (folder / name).write_bytes(b"II*")
    data = open_data(camvid, "train")
    assert notes_of(data.layout) == [
        f"{folder}: skipped 3 files in unsupported formats (2 .cr2, 1 .dng)"
    ]
    (folder / "000.png").rename(folder / "000.cr2")
    with pytest.raises(DataError, match=r"000 has no image in .*; 000.cr2 is in an unsupported f"):
        open_data(camvid, "train")


def test_heic_that_is_not_read_says_what_is_needed(camvid, monkeypatch):
    monkeypatch.setattr("segmodels.data.image_folder.has_heif", lambda: False)
    monkeypatch.setattr(
        "segmodels.data.image_folder.Image.registered_extensions", lambda: {".png": "PNG"}
    )
    (camvid / "train" / "000.png").rename(camvid / "train" / "000.heic")
    with pytest.raises(DataError, match=r"000.heic is in an unsupported format.*segmodels\[heif\]"):
        open_data(camvid, "train")


def test_paths_that_the_system_does_not_take_are_told_in_a_sentence():
    for path in ("x" * 5000, "/".join(["y" * 200] * 40)):
        assert not has_split(path, "train")
        with pytest.raises(DataError, match=r"there is no folder [xy/]{200}\.\.\.$"):
            open_data(path, "train")


def test_a_fifo_among_the_images_is_not_waited_for(camvid):
    for folder in ("train", "trainannot"):
        (camvid / folder / "000.png").unlink()
        os.mkfifo(camvid / folder / "000.png")
    found = check_split(open_data(camvid, "train"))
    assert len(found.errors) == 2
    assert all("not a regular file" in error for error in found.errors)
