"""Instances as labels: numbered cells, and folders of one mask a cell."""

import numpy as np
import pytest
from PIL import Image

from segmodels.data.dataset import DataError, has_split, open_data
from segmodels.data.validation import check_split
from segmodels.training.config import TrainingConfig
from segmodels.training.dataloader import AugmentedData
from segmodels.training.losses import border_weights

# Three cells, of which 300 and 7 touch.
CELLS = np.zeros((12, 16), np.int32)
CELLS[1:6, 1:6], CELLS[1:6, 6:11], CELLS[8:11, 3:9] = 300, 7, 2


def write(root, save, count=2):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(count):
        Image.new("RGB", (16, 12), (number, 9, 9)).save(root / "images" / f"{number}.png")
        save(root / "masks" / f"{number}", CELLS)
    return root


def save_png(path, cells):
    Image.fromarray(cells.astype(np.uint16)).save(path.with_suffix(".png"))


def save_tiff(path, cells):
    Image.fromarray(cells.astype(np.uint16)).save(path.with_suffix(".tif"), compression="tiff_lzw")


def save_npy(path, cells):
    np.save(path.with_suffix(".npy"), cells.astype(np.int64))


def save_masks(path, cells):
    """A mask of 0 and 255 for each cell, in the order of the numbers."""
    path.mkdir()
    for number in np.unique(cells[cells > 0]):
        Image.fromarray((255 * (cells == number)).astype(np.uint8)).save(path / f"c{number:04}.png")


@pytest.mark.parametrize("save", [save_png, save_tiff, save_npy, save_masks])
def test_instances_give_the_classes_and_the_cells(save, tmp_path):
    data = open_data(write(tmp_path, save), "train")
    assert data.class_names == ["background", "cell"]
    assert data.encoding.describe() == "instances (numbered cells)"
    _, target = data.pair(1)
    assert target.dtype == np.uint8
    assert np.array_equal(target, CELLS > 0)
    cells = data.cells(1)
    # The same cells, whatever their numbers.
    pairs = np.unique(np.stack([cells.ravel(), CELLS.ravel()]), axis=1)
    assert pairs.shape == (2, 4)
    assert np.array_equal(cells == 0, CELLS == 0)


def test_classes_may_be_named(tmp_path):
    write(tmp_path, save_png)
    (tmp_path / "classes.txt").write_text("ground\nnucleus\n")
    data = open_data(tmp_path, "train")
    assert data.class_names == ["ground", "nucleus"]
    assert data.cells(0).max() == 300


def test_with_three_classes_values_are_ids_and_folders_no_labels(tmp_path):
    write(tmp_path / "png", save_png)
    write(tmp_path / "masks", save_masks)
    for folder in ("png", "masks"):
        (tmp_path / folder / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"0.png has ids \[7, 300\]; expected 0 to 2"):
        open_data(tmp_path / "png", "train").target(0)
    assert open_data(tmp_path / "png", "train").cells(0) is None


def test_16_bit_class_ids_of_two_classes_are_no_instances(tmp_path):
    ids = (CELLS > 0).astype(np.int32)
    ids[0] = 255
    write(tmp_path, lambda path, _: save_png(path, ids))
    (tmp_path / "classes.txt").write_text("background\ncell\n")
    data = open_data(tmp_path, "train")
    assert data.cells(0) is None
    assert np.array_equal(data.target(0), ids)


def test_a_single_number_is_a_mask_whose_regions_are_the_cells(tmp_path):
    write(tmp_path, save_png)
    save_png(tmp_path / "masks" / "1", 9 * (CELLS > 0))
    data = open_data(tmp_path, "train")
    assert data.cells(1) is None
    assert np.array_equal(data.target(1), CELLS > 0)


def test_a_folder_for_each_image_as_in_the_data_science_bowl(tmp_path):
    for name in ("a7", "b2"):
        (tmp_path / name / "images").mkdir(parents=True)
        Image.new("RGB", (16, 12)).save(tmp_path / name / "images" / f"{name}.png")
        save_masks(tmp_path / name / "masks", CELLS)
    assert has_split(tmp_path, "train")
    data = open_data(tmp_path, "train")
    assert [sample.key for sample in data.samples] == ["images/a7.png", "images/b2.png"]
    assert np.array_equal(data.target(1), CELLS > 0)
    assert len(open_data(tmp_path, "val", val_fraction=0.5)) == 1
    (tmp_path / "b2" / "images" / "b2.png").unlink()
    with pytest.raises(DataError, match=r"b2/images contains 0 images; expected one"):
        open_data(tmp_path, "train")


def test_a_changed_mask_is_a_changed_dataset(tmp_path):
    write(tmp_path, save_masks)
    before = check_split(open_data(tmp_path, "train")).digests
    Image.new("L", (16, 12)).save(tmp_path / "masks" / "1" / "c0007.png")
    now = check_split(open_data(tmp_path, "train")).digests
    assert [name for name in before if before[name] != now[name]] == ["masks/1"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: [file.unlink() for file in folder.iterdir()], "a folder without masks"),
        (lambda folder: Image.new("L", (4, 5)).save(folder / "c0300.png"), "is 4 x 5 pixels"),
        (
            lambda folder: Image.new("RGB", (16, 12), "red").save(folder / "c0300.png"),
            "a colour image; expected the mask of one cell",
        ),
    ],
)
def test_masks_that_cannot_be_used_are_named(spoil, message, tmp_path):
    write(tmp_path, save_masks)
    spoil(tmp_path / "masks" / "1")
    with pytest.raises(DataError, match=rf"masks/1.*{message}"):
        open_data(tmp_path, "train").target(1)


def test_border_weights_lie_between_touching_cells(tmp_path):
    data = open_data(write(tmp_path, save_png), "train")
    options = {"zoom": (1, 1), "horizontal_flip": False, "color_strength": 0.0, "crop": (0, 0)}
    config = TrainingConfig("unet", str(tmp_path), border_weight=10.0, border_sigma=2.0, **options)
    _, target, border = AugmentedData(data, config, 0)[0]
    kwargs = {"weight": 10.0, "sigma": 2.0, "background": 0}
    expected = border_weights(target.numpy().astype(np.uint8), cells=CELLS, **kwargs)
    np.testing.assert_allclose(border.numpy(), expected, rtol=1e-5, atol=1e-5)
    regions = border_weights(target.numpy().astype(np.uint8), **kwargs)
    assert expected[3, 5] > 5 > 0.1 > regions[3, 5]  # where 300 and 7 touch
