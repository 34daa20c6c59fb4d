import math

import pytest

from segmodels.utils.formatting import count_of, percent


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_thing_is_singular(number, text):
    assert count_of(number, "file") == text


@pytest.mark.parametrize(("value", "text"), [(0.12345, "12.35"), (None, "-"), (math.nan, "-")])
def test_fractions_are_given_in_percent(value, text):
    assert percent(value) == text
