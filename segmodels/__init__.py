"""FCN, U-Net and SegNet: three classic networks of semantic segmentation, side by side."""

import os

# torch reads it at its first allocation. On Linux, tensors of 2 MiB and more then lie in pages of
# 2 MiB: a map of features costs dozens of page faults, not thousands. A user's "0" stays.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from segmodels.data.image_io import PictureError
from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.short_names import list_models
from segmodels.inference.results import Segmentation
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import load_model
from segmodels.models.fcn import FCN
from segmodels.models.segnet import SegNet
from segmodels.models.unet import UNet
from segmodels.version import __version__

__all__ = [
    "FCN",
    "CheckpointError",
    "PictureError",
    "SegNet",
    "Segmentation",
    "Segmenter",
    "UNet",
    "__version__",
    "list_models",
    "load_model",
]
