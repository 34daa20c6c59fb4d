"""Loading does no more than reading the file."""

import subprocess
import sys

import pytest
import torch

from segmodels import SegNet

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
LOAD = """
import sys
from segmodels import load_model
before = "sympy" in sys.modules
load_model(sys.argv[1])
print(before, "sympy" in sys.modules)
"""


@pytest.mark.skipif(TORCH < (2, 11), reason="older versions of torch draw on meta tensors")
def test_building_a_network_for_its_weights_does_not_import_torchs_compiler(tmp_path):
    """The first random draw on "meta" would, which takes a second."""
    SegNet(class_names=["sky", "road"], variant="basic").save_pretrained(tmp_path)
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = printed.split()
    assert after == before
