"""FCN, U-Net and SegNet: three classic networks of semantic segmentation, side by side."""

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
