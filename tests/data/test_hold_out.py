"""Validation images held out of the training images."""

from hashlib import sha256

import numpy as np
import pytest

from segmodels.data.dataset import DataError, HoldOut, has_split, open_data, open_split
from segmodels.data.layouts import Sample
from tests.support.datasets import CLASS_NAMES, write_camvid, write_unlisted


def names_of(data):
    return [sample.image.stem for sample in data.samples]


ALL = [f"{number:02}" for number in range(20)]


@pytest.mark.parametrize("labels", ["labels", "masks"])
def test_without_lists_every_image_is_for_training(tmp_path, labels):
    root = write_unlisted(tmp_path, ALL, labels)
    assert names_of(open_data(root, "train")) == names_of(open_data(root, "all")) == ALL
    assert [has_split(root, split) for split in ("train", "all", "val", "test")] == [1, 1, 0, 0]
    with pytest.raises(DataError, match=r"has no split 'test': without lists such as train.txt"):
        open_data(root, "test")
    assert open_data(root, "train").class_names == CLASS_NAMES


def test_a_fraction_is_held_out_by_the_seed(tmp_path):
    root = write_unlisted(tmp_path, ALL)
    train, val = (open_data(root, split, val_fraction=0.2) for split in ("train", "val"))
    assert len(val) == 4
    assert sorted([*names_of(train), *names_of(val)]) == ALL
    assert names_of(open_data(root, "val", val_fraction=0.2)) == names_of(val)
    others = [names_of(open_data(root, "val", val_fraction=0.2, seed=seed)) for seed in (1, 2)]
    assert names_of(val) != others[0] != others[1]
    drawn = sorted(ALL, key=lambda name: sha256(f"0 images/{name}.png".encode()).digest())
    assert names_of(val) == sorted(drawn[:4])


def test_folds_are_disjoint_and_cover_all(tmp_path):
    root = write_unlisted(tmp_path, ALL)
    folds = [names_of(open_data(root, "val", folds=3, fold=fold)) for fold in range(3)]
    assert [len(fold) for fold in folds] == [7, 7, 6]
    assert sorted(name for fold in folds for name in fold) == ALL
    rest = names_of(open_data(root, "train", folds=3, fold=1))
    assert sorted([*rest, *folds[1]]) == ALL


def groups_of(names):
    return {name.partition("_")[0] for name in names}


@pytest.mark.parametrize("options", [{"val_fraction": 0.3}, {"folds": 3, "fold": 2}])
def test_images_of_one_prefix_stay_together(tmp_path, options):
    plates = [f"plate{plate}_{well}" for plate in range(4) for well in range(5)]
    root = write_unlisted(tmp_path, plates)
    train, val = (names_of(open_data(root, split, **options)) for split in ("train", "val"))
    assert not groups_of(train) & groups_of(val)
    assert len(val) in (5, 10)
    line = HoldOut(**options).describe(open_data(root, "all").samples)
    assert line == (
        f"validation on {len(val)} of the 20 training images, held out by file name "
        f"prefix: {', '.join(sorted(groups_of(val)))}"
    )


@pytest.mark.parametrize(
    "names",
    [[f"image_{i}" for i in range(10)], [f"plate{i % 2}_{i}" for i in range(10)]],
    ids=["one prefix", "fewer prefixes than folds"],
)
def test_too_few_prefixes_do_not_keep_images_together(tmp_path, names):
    root = write_unlisted(tmp_path, names)
    assert [len(open_data(root, "val", folds=5, fold=fold)) for fold in range(5)] == [2] * 5
    line = HoldOut(folds=5, fold=0).describe(open_data(root, "all").samples)
    assert line == "validation on 2 of the 10 training images, held out"


def test_neighbouring_pages_of_a_single_stack_stay_together(tmp_path):
    file = tmp_path / "stack.tif"
    pages = [Sample(file, file, page, 30) for page in range(30)]
    held = np.flatnonzero(HoldOut(val_fraction=0.1).held_out(pages))
    assert held.tolist() == list(range(held[0], held[0] + 3))
    folds = [np.flatnonzero(HoldOut(folds=5, fold=f).held_out(pages)) for f in range(5)]
    assert sorted(np.concatenate(folds)) == list(range(30))
    assert all(fold[-1] - fold[0] == 5 for fold in folds)


def test_the_draw_does_not_depend_on_the_order(tmp_path):
    samples = [Sample(tmp_path / f"{i}.png", tmp_path / f"{i}.png") for i in range(12)]
    hold_out = HoldOut(val_fraction=0.3, seed=7)
    assert hold_out.held_out(samples) == hold_out.held_out(samples[::-1])[::-1]


def test_recorded_names_are_held_out_again(tmp_path):
    root = write_unlisted(tmp_path, ALL)
    recorded = HoldOut(names=frozenset({"images/03.png", "images/11.png"}))
    assert names_of(open_split(root, "val", recorded)) == ["03", "11"]
    assert len(open_split(root, "train", recorded)) == 18
    with pytest.raises(
        DataError, match=r"lacks 1 image that the training held out .*images/77.png"
    ):
        open_split(root, "val", HoldOut(names=frozenset({"images/77.png"})))


def test_a_split_val_is_not_divided_but_by_folds(tmp_path):
    root = write_camvid(tmp_path / "camvid", train=4, val=2)
    with pytest.raises(DataError, match="already has a split 'val'; omit --val-fraction"):
        open_data(root, "train", val_fraction=0.2)
    folds = [open_data(root, "val", folds=3, fold=fold) for fold in range(3)]
    keys = [sample.key for fold in folds for sample in fold.samples]
    assert sorted(keys) == [*(f"train/00{i}.png" for i in range(4)), "val/000.png", "val/001.png"]
    assert len(open_data(root, "test" if has_split(root, "test") else "val")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction must be between 0 and 1 \\(exclusive\\), got 1"),
        ({"val_fraction": 0.1, "folds": 3, "fold": 0}, "either val_fraction or folds and fold"),
        ({"folds": 3}, "folds and fold must be given together, got folds 3 and fold None"),
        ({"folds": 3, "fold": 3}, "fold from 0 to folds - 1, got folds 3 and fold 3"),
        ({"folds": 25, "fold": 0}, "20 images cannot be divided into 25 parts"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, message):
    root = write_unlisted(tmp_path, ALL)
    with pytest.raises(DataError, match=message):
        open_data(root, "val", **options)
