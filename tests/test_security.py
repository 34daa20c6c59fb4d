"""Every guarantee in SECURITY.md names a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HEAD = "| guarantee | test |"
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and line != HEAD]


@pytest.mark.parametrize("row", ROWS, ids=[row[2:40] for row in ROWS])
def test_a_guarantee_names_a_test_that_exists(row):
    file, name = re.search(r"`([\w/.]+)::(\w+)` \|$", row).groups()
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", source, re.MULTILINE)
