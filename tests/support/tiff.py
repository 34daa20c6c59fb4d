"""TIFFs of any number of channels, which Pillow does not write."""

import struct
from pathlib import Path

import numpy as np


def write_multispectral(path: Path, image: np.ndarray) -> Path:
    """(H, W, C) uint8 or uint16, uncompressed, the channels of a pixel beside each other."""
    height, width, channels = image.shape
    data = image.astype(image.dtype.newbyteorder("<")).tobytes()
    bits = 8 * image.dtype.itemsize
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [1], 273: [8]}
    tags |= {277: [channels], 278: [height], 279: [len(data)], 338: [0] * (channels - 1)}
    start = 8 + len(data) + len(data) % 2
    extra_at = start + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    page = struct.pack("<H", len(tags)) + entries + bytes(4) + extra
    header = b"II*\0" + struct.pack("<I", start)
    path.write_bytes((header + data).ljust(start, b"\0") + page)
    return path
