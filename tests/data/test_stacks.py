"""TIFF stacks, in files and in datasets: each page is an image."""

import numpy as np
import pytest
from PIL import Image

from segmodels.data.dataset import DataError, open_data
from segmodels.data.image_io import PictureError, page_count, read_image
from segmodels.data.validation import check_split
from tests.data.test_formats import grey, tiff
from tests.support.datasets import CLASS_NAMES, synthetic_pair
from tests.support.trainings import tiny_trainer


def save_stack(path, arrays):
    pages = [Image.fromarray(array) for array in arrays]
    pages[0].save(path, save_all=True, append_images=pages[1:])


@pytest.fixture
def folder(tmp_path):
    """A stack of six images, one of 16-bit grey in two pages, and an image that is no stack."""
    pairs = [synthetic_pair(seed, void_id=255) for seed in range(9)]
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "classes.txt").write_text("\n".join(CLASS_NAMES))
    save_stack(tmp_path / "images" / "a_stack.tif", [pair[0] for pair in pairs[:6]])
    save_stack(tmp_path / "masks" / "a_stack.tif", [pair[1] for pair in pairs[:6]])
    deep = [257 * pair[0][..., 0].astype(np.uint16) for pair in pairs[6:8]]
    save_stack(tmp_path / "images" / "b_deep.tiff", deep)
    save_stack(tmp_path / "masks" / "b_deep.tif", [pair[1] for pair in pairs[6:8]])
    Image.fromarray(pairs[8][0]).save(tmp_path / "images" / "c_one.png")
    Image.fromarray(pairs[8][1]).save(tmp_path / "masks" / "c_one.png")
    return tmp_path


def test_pages_are_images_with_labels_and_names(folder):
    data = open_data(folder, "train")
    names = [f"a_stack.tif[{page}]" for page in range(6)]
    names += ["b_deep.tiff[0]", "b_deep.tiff[1]", "c_one.png"]
    assert [sample.name for sample in data.samples] == names
    assert len({sample.key for sample in data.samples}) == 9
    for seed in range(9):
        image, target = data.pair(seed)
        expected, ids = synthetic_pair(seed, void_id=255)
        if seed in (6, 7):  # grey
            expected = expected[..., :1].repeat(3, 2)
        assert np.array_equal(image, expected)
        assert np.array_equal(target, ids)


def test_a_stack_is_one_file_of_the_dataset(folder):
    found = check_split(open_data(folder, "train"))
    assert sorted(found.digests) == sorted(
        [
            *("images/a_stack.tif", "images/b_deep.tiff", "images/c_one.png"),
            *("masks/a_stack.tif", "masks/b_deep.tif", "masks/c_one.png"),
        ]
    )
    assert found.sizes == {(48, 40): 9}


def test_pages_without_labels_are_refused(folder):
    save_stack(folder / "masks" / "a_stack.tif", [synthetic_pair(0, 255)[1]] * 5)
    with pytest.raises(
        DataError, match=r"a_stack.tif has 6 pages, but its label .* has 5; expected"
    ):
        open_data(folder, "train")
    (folder / "masks" / "a_stack.tif").unlink()
    Image.fromarray(synthetic_pair(0, 255)[1]).save(folder / "masks" / "a_stack.png")
    with pytest.raises(DataError, match=r"6 pages, but its label .*a_stack.png has 1; expected"):
        open_data(folder, "train")


def test_a_bad_page_is_named(folder):
    ids = [synthetic_pair(seed, 255)[1] for seed in range(6)]
    ids[4] = np.full_like(ids[4], 77)
    save_stack(folder / "masks" / "a_stack.tif", ids)
    with pytest.raises(DataError, match=r"^page 4 of .*a_stack.tif has ids \[77\]"):
        open_data(folder, "train").target(4)


def test_a_training_on_stacks_keeps_prefixes_together(folder):
    trainer = tiny_trainer(folder, val_fraction=0.3)
    names = ["b_deep.tiff[0]", "b_deep.tiff[1]", "c_one.png"]
    assert trainer.held_out == [f"images/{name}" for name in names]
    assert len(trainer.data) == 6
    assert np.isfinite(trainer.take_step(*next(trainer.batches(0))))


def test_pages_of_a_stack_without_thumbnails(tmp_path):
    first, second = (np.full((2, 3), value, np.uint8) for value in (10, 20))
    thumbnail = grey(np.full((1, 1), 99, np.uint8), 8)
    thumbnail[0][254] = 1  # a reduced image
    path = tiff(tmp_path / "a.tif", [grey(first, 8), thumbnail, grey(second, 8)])
    assert page_count(path) == 2
    assert np.array(read_image(path, page=1))[..., 0].tolist() == second.tolist()
    with pytest.raises(PictureError, match=r"a\.tif has no page 2; expected 0 to 1"):
        read_image(path, page=2)
    Image.fromarray(first).save(tmp_path / "a.png")
    assert page_count(tmp_path / "a.png") == 1
