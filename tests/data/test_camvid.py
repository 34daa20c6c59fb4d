"""CamVid's encodings."""

from collections import Counter

import numpy as np
from PIL import Image

from segmodels.data.camvid import CLASS_NAMES, OFFICIAL_COLORS, camvid_encoding


def test_all_but_void_of_the_32_official_classes_belong_to_one_of_the_11():
    assert len(OFFICIAL_COLORS) == 31
    assert set(OFFICIAL_COLORS.values()) == set(CLASS_NAMES)
    # Sturgess et al.'s groups: building, car 5 each; pedestrian 4; road, pavement, sign 3 each.
    sizes = Counter(OFFICIAL_COLORS.values())
    assert [sizes[name] for name in ("building", "car", "pedestrian", "sign")] == [5, 5, 4, 3]


def test_classes_in_another_order_get_their_own_ids(tmp_path):
    names = list(reversed(CLASS_NAMES))
    pixels = np.array([[(128, 128, 128), (0, 128, 192), (60, 40, 222)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "label.png")
    encoding = camvid_encoding(names, {})
    assert encoding is not None
    ids = encoding.read(tmp_path / "label.png")
    assert [names[i] for i in ids[0]] == ["sky", "bicyclist", "pavement"]


def test_other_classes_have_no_encoding_of_camvids():
    assert camvid_encoding(["cat", "dog"], {}) is None
