import numpy as np

from segmodels.evaluation.failures import weakest_classes

NAMES = ["sky", "road", "pole", "cat"]


def test_the_weakest_classes_in_words_by_hand():
    # Rows are the target. pole: 40 of 100 found, 50 taken for sky, 10 for road; called pole are 40
    # + 120: IoU 40 / (100 + 120) = 18.18 %, and of the 160, 75 % is road. road: 80 of 200.
    matrix = np.array([[900, 0, 0, 0], [0, 80, 120, 0], [50, 10, 40, 0], [0, 0, 0, 0]])
    pole, road = weakest_classes(matrix, NAMES, count=2)
    assert pole == (
        "**pole** (IoU 18.18 %): 40 % of its pixels are found, 50 % are taken for sky and 10 % for "
        "road. Of what is called pole, 75 % is road."
    )
    # road: IoU 80 / (200 + 10), 60 % taken for pole; of the 90 that are called road, 11 % is pole.
    assert road == (
        "**road** (IoU 38.10 %): 40 % of its pixels are found, 60 % are taken for pole. Of what is "
        "called road, 11 % is pole."
    )


def test_what_is_right_needs_no_more_words():
    (line,) = weakest_classes(np.diag([100, 0]), ["sky", "road"])
    assert line == "**sky** (IoU 100.00 %): 100 % of its pixels are found."


def test_absent_classes_are_left_out():
    assert weakest_classes(np.zeros((2, 2), np.int64), ["a", "b"]) == []
