"""What the browser makes of a viewer's panel."""

import base64
import zlib

import numpy as np


def unpacked(panel, number=0):
    """A map of a viewer's panel as the browser sees it, (h, w)."""
    width, height = panel["size"]
    ids = zlib.decompress(base64.b64decode(panel["maps"][number]))
    return np.frombuffer(ids, np.uint8).reshape(height, width)
