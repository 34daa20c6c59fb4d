"""Where class maps depart from each other, and from the truth."""

import numpy as np
import pytest

from segmodels.inference import maps


def ids(*values):
    return np.array([values], np.uint8)


def test_agreement_is_the_share_on_which_all_agree():
    a, b, c = ids(0, 1, 2, 2), ids(0, 1, 2, 1), ids(0, 2, 2, 1)
    assert maps.agreement([a, b, c]) == 2 / 4  # the first and the third pixel
    assert maps.agreement([a, b]) == 3 / 4
    assert maps.agreement([a]) == 1.0


def test_the_map_of_disagreement_names_the_one_that_departs():
    a = ids(7, 1, 2, 3, 1)
    b = ids(7, 2, 1, 3, 2)
    c = ids(7, 2, 2, 4, 3)
    # All agree; a departs; b departs; c departs; all differ.
    assert maps.disagreement([a, b, c]).tolist() == [[0, 1, 2, 3, 4]]


def test_of_two_that_differ_neither_is_the_one_that_departs():
    assert maps.disagreement([ids(1, 1), ids(1, 2)]).tolist() == [[0, 3]]
    assert maps.disagreement([ids(1, 1)]).tolist() == [[0, 0]]


def test_disagreement_is_that_of_counting_pixel_by_pixel():
    random = np.random.default_rng(0)
    four = [random.integers(0, 3, (9, 11), np.uint8) for _ in range(4)]
    found = maps.disagreement(four)
    for y, x in np.ndindex(9, 11):
        values = [int(one[y, x]) for one in four]
        alone = [k for k in range(4) if len(set(values[:k] + values[k + 1 :])) == 1]
        expected = 0 if len(set(values)) == 1 else alone[0] + 1 if alone else 5
        assert found[y, x] == expected


def test_common_ids_compare_classes_by_name():
    names, (first, second) = maps.common_ids(
        [ids(0, 1, 2), ids(0, 1, 0)], [["road", "sky", "car"], ["car", "road"]]
    )
    assert names == ["road", "sky", "car"]
    assert first.tolist() == [[0, 1, 2]]
    assert second.tolist() == [[2, 0, 2]]


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(ValueError, match="at most 255 different classes"):
        maps.common_ids([ids(0)] * 2, [[str(i) for i in range(200)], [f"b{i}" for i in range(56)]])


def test_errors_leave_void_unjudged():
    assert maps.errors(ids(0, 1, 255), ids(0, 2, 1)).tolist() == [[0, 1, 2]]


def test_quantised_numbers_are_rounded_and_clipped():
    # 0.5 * 255 = 127.5, to the even 128; 0.03 of 0.02 is beyond.
    assert maps.quantised(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert maps.quantised(np.array([0.01, 0.03]), 0.02).tolist() == [128, 255]
