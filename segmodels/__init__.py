"""FCN, U-Net and SegNet: three classic networks for semantic segmentation.

Examples:
    >>> from segmodels import Segmenter, load_model
    >>> segmenter = Segmenter(load_model("unet-camvid"))  # doctest: +SKIP
    >>> segmenter("street.jpg").overlay().save("overlay.png")  # doctest: +SKIP
"""

import os

# Read by torch at its first allocation. On Linux, tensors of 2 MiB or more then use huge pages of
# 2 MiB, so that a feature map causes dozens of page faults instead of thousands. Set it to "0" to
# disable this.
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
