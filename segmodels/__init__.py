"""FCN, U-Net and SegNet: three classic networks of semantic segmentation, side by side."""

import os

# torch reads it at its first allocation. On Linux, tensors of 2 MiB and more then lie in pages of
# 2 MiB: a map of features costs dozens of page faults, not thousands. A user's "0" stays.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from .checkpoint import CheckpointError
from .fcn import FCN
from .hub import load_model
from .pictures import PictureError
from .segmentation import Segmentation
from .segmenter import Segmenter
from .segnet import SegNet
from .unet import UNet
from .version import __version__

__all__ = [
    "FCN",
    "CheckpointError",
    "PictureError",
    "SegNet",
    "Segmentation",
    "Segmenter",
    "UNet",
    "__version__",
    "load_model",
]
