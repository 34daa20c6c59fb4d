"""What is probably wrong with labels, though every file can be read."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from segmodels.cli.main import main
from segmodels.data.camvid import CLASS_NAMES as CAMVID
from segmodels.data.dataset import DataError
from segmodels.data.diagnosis import likely_errors
from segmodels.data.validation import check_dataset, check_splits

SIZE = 24
MASK = np.zeros((SIZE, SIZE), np.uint8)
MASK[2:10, 3:12] = 1


def write(root, names, labels, layout="camvid", image_exif=None, label_options=None):
    """A split "train" with these labels, arrays or images."""
    folders = {"camvid": ("train", "trainannot"), "lists": ("images", "labels")}[layout]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    if names:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    if layout == "lists":
        (root / "train.txt").write_text("".join(f"{number}\n" for number in range(len(labels))))
    for number, label in enumerate(labels):
        label = label if isinstance(label, Image.Image) else Image.fromarray(label)
        label.save(root / folders[1] / f"{number}.png", **(label_options or {}))
        noise = np.random.default_rng(number).integers(0, 256, (*label.size[::-1], 3), np.uint8)
        options = {"exif": image_exif} if image_exif else {}
        Image.fromarray(noise).save(root / folders[0] / f"{number}.png", **options)
    return root


def warnings_of(root):
    reports, errors = check_dataset(root)
    assert errors == []
    return likely_errors(reports)


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


# ---- nothing is wrong ----


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["bg", "fg"], [MASK, MASK]),
        (["bg", "fg"], [MASK * 255, MASK * 255]),
        (["bg", "fg"], [MASK, np.where(MASK, 255, MASK + 1)]),  # ids, with void in one
        (["a", "b", "c"], [MASK, MASK * 2]),
        (CAMVID, [np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) % 12]),
        (None, [MASK * 255]),
    ],
)
def test_labels_that_can_be_meant_are_not_suspected(tmp_path, names, labels):
    assert warnings_of(write(tmp_path / "d", names, labels)) == []


# ---- classes and ids ----


def test_one_class_with_masks_of_0_and_255(tmp_path):
    found = warnings_of(write(tmp_path / "d", ["crack"], [MASK * 255]))
    assert (
        "contain only 0 and 255, but classes.txt has 1 class: they are probably binary" in found[0]
    )
    assert "255 is now read as void" in found[0]
    assert "list the two classes background and crack in classes.txt" in found[0]
    assert found[1].startswith("all pixels of 'train' are 'crack' or void")
    assert len(found) == 2


def test_one_class_with_masks_of_0_and_1(tmp_path):
    found = warnings_of(write(tmp_path / "d", ["crack"], [MASK]))
    assert "contain only 0 and 1, but classes.txt has 1 class: they are probably binary" in found[0]
    assert "1 is now read as void" in found[0]
    share = 100 * MASK.sum() / SIZE**2
    assert f"the id 1 is not declared in classes.txt and is read as void: {share:.2f} %" in found[1]


@pytest.mark.parametrize("value", [1, 255])
def test_masks_with_three_classes(tmp_path, value):
    found = warnings_of(write(tmp_path / "d", ["bg", "road", "car"], [MASK * value]))
    assert f"contain only 0 and {value}, but classes.txt has 3 classes" in found[0]
    assert (f"{value} is now read as 'road'" if value == 1 else "255 is now read as void") in found[
        0
    ]
    assert found[1].endswith(
        "no label of 'train' contains car, which a network therefore cannot learn"
        if value == 1
        else "no label of 'train' contains road, car"
    )


def test_ids_counted_from_1(tmp_path):
    found = warnings_of(write(tmp_path / "d", ["road", "car"], [MASK + 1]))
    assert found[0].startswith("no label contains the id 0, and the largest id is 2")
    assert "the ids are probably shifted by one, counted from 1" in found[0]


def test_a_background_that_classes_txt_does_not_name(tmp_path):
    label = MASK * 2
    label[-3:] = 1
    found = warnings_of(write(tmp_path / "d", ["road", "car"], [label]))
    assert found[0].startswith(
        "the id 2 is read as void, since it follows the ids of the 2 classes"
    )
    assert "insert background as its first line" in found[0]
    assert "12.50 % of the pixels, in 1 of 1 labels" in found[1]  # 72 of 576


def test_ids_outside_classes_are_errors_and_their_share_is_told(tmp_path, capsys):
    label = MASK.copy()
    label[0] = 7  # 24 of 576 pixels in one of two labels
    root = write(tmp_path / "d", ["bg", "fg"], [label, MASK], layout="lists")
    assert main(["data", "check", str(root)]) == 1
    printed = capsys.readouterr()
    assert "warning: the id 7 is not declared in classes.txt: 2.08 % of" in printed.out
    assert "in 1 of 2 labels" in printed.out
    assert "0.png has ids [7]; expected 0 to 1" in printed.err


def test_shifted_ids_in_lists_are_errors_with_their_cause(tmp_path, capsys):
    root = write(tmp_path / "d", ["road", "car"], [MASK + 1], layout="lists")
    assert main(["data", "check", str(root)]) == 1
    printed = capsys.readouterr()
    assert "has ids [2]; expected 0 to 1" in printed.err
    assert "the ids are probably shifted by one" in printed.out


def test_a_class_that_only_validation_has_is_told(tmp_path):
    root = write(tmp_path / "d", ["a", "b", "c"], [MASK])
    for folder in ("train", "trainannot"):
        (root / folder).rename(root / folder.replace("train", "val"))
    write(root, None, [MASK * 2])
    found = likely_errors(check_splits(root, ("train", "val")))
    assert found == ["no label of 'train' contains b, which a network therefore cannot learn"]


# ---- encodings that differ ----


def test_1_bit_masks_beside_8_bit_masks(tmp_path):
    labels = [MASK.astype(bool), MASK * 255, MASK * 255]
    root = write(tmp_path / "d", ["bg", "fg"], labels)
    (found,) = warnings_of(root)
    assert found.startswith(
        "the values of masks differ: 0 and 1 (1-bit images) in trainannot/0.png, 0 and 255 in "
        "2 files (trainannot/1.png and others); both are read as masks, with 1 and 255 as the "
        "second class"
    )
    reports, _ = check_dataset(root)
    assert reports["train"].counts.tolist() == [[SIZE**2 - 72, 72, 0]] * 3


def test_8_bit_masks_of_two_kinds(tmp_path):
    root = write(tmp_path / "d", ["bg", "fg"], [MASK, MASK * 255])
    assert (
        "0 and 1 in trainannot/0.png, 0 and 255 in trainannot/1.png; 255 is read as void"
        in warnings_of(root)[0]
    )


def with_palette(ids, colors):
    image = Image.fromarray(ids)
    image.putpalette([value for color in colors for value in color] + [0] * (768 - 3 * len(colors)))
    return image


def test_palettes_in_another_order(tmp_path):
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    labels = [
        with_palette(MASK, [red, green, blue]),
        with_palette(MASK * 2, [red, blue, green]),
    ]
    (found,) = [
        one
        for one in warnings_of(write(tmp_path / "d", ["a", "b", "c"], labels))
        if "palette" in one
    ]
    assert (
        "the colour (0, 200, 0) has the id 1 in trainannot/0.png and 2 in trainannot/1.p" in found
    )


def test_palettes_in_another_order_are_no_matter_where_colors_are_declared(tmp_path):
    red, green = (200, 0, 0), (0, 200, 0)
    labels = [with_palette(MASK, [red, green]), with_palette(1 - MASK, [green, red])]
    root = write(tmp_path / "d", ["a 200 0 0", "b 0 200 0"], labels)
    assert warnings_of(root) == []
    reports, _ = check_dataset(root)
    assert (reports["train"].counts[0] == reports["train"].counts[1]).all()


def test_objects_in_alpha_alone_are_an_error(tmp_path):
    label = Image.merge("RGBA", [Image.new("L", (SIZE, SIZE))] * 3 + [Image.fromarray(MASK * 255)])
    root = write(tmp_path / "d", ["bg", "fg"], [label, MASK])
    with pytest.raises(DataError, match="objects are only in its alpha channel"):
        check_splits(root, ("train",))


# ---- EXIF ----


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_turns_that_the_labels_do_not_share(tmp_path, orientation):
    root = write(tmp_path / "d", ["bg", "fg"], [MASK] * 2, image_exif=exif(orientation))
    (found,) = warnings_of(root)
    assert found.startswith(
        "2 files (train/0.png and others): the EXIF orientation of the image "
        f"({orientation}) differs from that of the label (1)"
    )


def test_turns_that_the_labels_share(tmp_path):
    options = {"image_exif": exif(3), "label_options": {"exif": exif(3)}}
    assert warnings_of(write(tmp_path / "d", ["bg", "fg"], [MASK], **options)) == []


def test_upright_labels_of_turned_images_are_told_by_their_size(tmp_path):
    root = write(tmp_path / "d", ["bg", "fg"], [MASK[:, :16]], image_exif=exif(6))
    with pytest.raises(
        DataError, match="the image has the EXIF orientation 6, which the label lacks"
    ):
        check_splits(root, ("train",))
    Image.fromarray(MASK[:16]).save(root / "trainannot" / "0.png")  # 16 x 24 turned: 24 x 16
    assert warnings_of(root) == []


# ---- 23.3: what images hold ----


def test_check_tells_ranges_and_levels_of_deep_images(tmp_path, capsys):
    root = write(tmp_path / "d", ["bg", "fg"], [MASK] * 2)
    ramp = (np.arange(SIZE * SIZE, dtype=np.uint16) * 7).reshape(SIZE, SIZE)  # 0 to 4025
    for number in range(2):
        (root / "train" / f"{number}.png").unlink()
        Image.fromarray(ramp + number).save(root / "train" / f"{number}.tif")
    assert main(["data", "check", str(root)]) == 0
    line = "train     16-bit integers from 0 to 4026, 576 levels per image, white at 4095\n"
    assert line in capsys.readouterr().out
