"""The networks. Importing this package registers them; see `segmodels.models.registry`."""

from segmodels.models.fcn import FCN
from segmodels.models.segnet import SegNet
from segmodels.models.unet import UNet

__all__ = ["FCN", "SegNet", "UNet"]
