"""CamVid's encodings."""

from collections import Counter

from segmodels.data.camvid import CLASS_NAMES, OFFICIAL_COLORS


def test_all_but_void_of_the_32_official_classes_belong_to_one_of_the_11():
    assert len(OFFICIAL_COLORS) == 31
    assert set(OFFICIAL_COLORS.values()) == set(CLASS_NAMES)
    # Sturgess et al.'s groups: building, car 5 each; pedestrian 4; road, pavement, sign 3 each.
    sizes = Counter(OFFICIAL_COLORS.values())
    assert [sizes[name] for name in ("building", "car", "pedestrian", "sign")] == [5, 5, 4, 3]
