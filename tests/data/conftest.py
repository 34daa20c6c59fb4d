import numpy as np
import pytest


@pytest.fixture
def scene():
    """(3, 5, 3) uint8 whose pixels all differ, so that every change of orientation shows."""
    return np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
