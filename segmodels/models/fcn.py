"""FCN: Fully Convolutional Networks for Semantic Segmentation.

Long, Shelhamer and Darrell, CVPR 2015, https://arxiv.org/abs/1411.4038. Figure 3 shows the network,
section 4.2 describes its skips. Layers are named as in the authors' `voc-fcn8s`, `-16s` and `-32s`.

Differences from the paper: `reference_padding=False` pads only as much as the output requires (the
reference pads the image by 100 pixels), and the head can be narrower than 4096 channels. The last
deconvolution is a parameter like the others; the paper fixes it to bilinear interpolation, as does
`segmodels.training`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn, relu_  # in place, as in the authors' networks
from torch.nn.functional import conv_transpose2d

from segmodels.models._validation import checked_bool, checked_choice, checked_int, checked_rate
from segmodels.models.base import Paper, SegmentationModel
from segmodels.models.registry import register_model

STRIDES = (32, 16, 8)  # prediction strides, coarsest first
MAX_HEAD_CHANNELS = 8192  # twice VGG16's


@register_model("fcn")
class FCN(SegmentationModel):
    """FCN-32s, FCN-16s or FCN-8s on VGG16.

    Args:
        class_names: The classes in the order of their ids.
        in_channels: Number of input channels.
        stride: 32, 16 or 8 pixels, the finest prediction stride: 32 has no skips, 16 adds the
            scores of pool4, and 8 those of pool3 as well.
        head_channels: Width of fc6 and fc7, at most 8192; 4096 in the paper.
        dropout: Dropout rate after fc6 and after fc7.
        reference_padding: Reproduce the authors' padding and crops exactly.
        at_once: Scale the skips for all-at-once training, pool4 by 0.01 and pool3 by 0.0001
            (`voc-fcn8s-atonce`; section 4.3 of the 2016 journal version).
        palette: [r, g, b] in 0..255 for each class; None: chosen by class name.
        image_mean: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        image_std: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        working_size: Longer side, in pixels, that images are resized to; None: not resized.
        minimum_size: Without a working size, the longer side, in pixels, that smaller images are
            enlarged to; None: they are not.

    Examples:
        >>> import torch
        >>> from segmodels import FCN
        >>> model = FCN(class_names=["road", "sky"], head_channels=64).eval()
        >>> model(torch.randn(1, 3, 60, 80)).shape
        torch.Size([1, 2, 60, 80])
    """

    paper = Paper("Long, Shelhamer and Darrell", "2015-06", "https://arxiv.org/abs/1411.4038")
    # Lower than the default: the score layers start at zero on unnormalised VGG16 activations.
    default_learning_rates = (1e-4, 3e-4)

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int = 3,
        stride: int = 8,
        head_channels: int = 4096,
        dropout: float = 0.5,
        reference_padding: bool = False,
        at_once: bool = True,
        palette: Sequence[Sequence[int]] | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        working_size: int | None = None,
        minimum_size: int | None = None,
    ) -> None:
        super().__init__(
            class_names=class_names,
            in_channels=in_channels,
            palette=palette,
            image_mean=image_mean,
            image_std=image_std,
            working_size=working_size,
            minimum_size=minimum_size,
        )
        self.stride = checked_choice("stride", stride, STRIDES)
        self.head_channels = checked_int("head_channels", head_channels, MAX_HEAD_CHANNELS)
        self.dropout = checked_rate("dropout", dropout)
        self.reference_padding = checked_bool("reference_padding", reference_padding)
        self.at_once = checked_bool("at_once", at_once)
        self.conv1_1_padding = 100 if reference_padding else 1
        self.fc6_padding = 0 if reference_padding else 3

        self.conv1_1 = nn.Conv2d(in_channels, 64, 3, padding=self.conv1_1_padding)
        self.conv1_2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv2_1 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv2_2 = nn.Conv2d(128, 128, 3, padding=1)
        self.conv3_1 = nn.Conv2d(128, 256, 3, padding=1)
        self.conv3_2 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv3_3 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4_1 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4_2 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv4_3 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5_1 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5_2 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5_3 = nn.Conv2d(512, 512, 3, padding=1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

        self.fc6 = nn.Conv2d(512, head_channels, 7, padding=self.fc6_padding)
        self.fc7 = nn.Conv2d(head_channels, head_channels, 1)
        self.drop = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(head_channels, self.num_classes, 1)
        if stride == 32:
            self.upscore = deconvolution(self.num_classes, stride=32)
        else:
            self.upscore2 = deconvolution(self.num_classes, stride=2)
            self.score_pool4 = nn.Conv2d(512, self.num_classes, 1)
        if stride == 16:
            self.upscore16 = deconvolution(self.num_classes, stride=16)
        if stride == 8:
            self.upscore_pool4 = deconvolution(self.num_classes, stride=2)
            self.score_pool3 = nn.Conv2d(256, self.num_classes, 1)
            self.upscore8 = deconvolution(self.num_classes, stride=8)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise score layers with zero, deconvolutions with bilinear interpolation (section
        4.3), and all others as in He et al., for training from scratch."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.data.copy_(bilinear_kernel(self.num_classes, layer.kernel_size[0]))
            elif isinstance(layer, nn.Conv2d):
                if name.startswith("score_"):
                    nn.init.zeros_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @property
    def display_name(self) -> str:
        return f"FCN-{self.stride}s"

    @property
    def prediction_strides(self) -> tuple[int, ...]:
        return tuple(stride for stride in STRIDES if stride >= self.stride)

    def fixed_parameters(self) -> list[nn.Parameter]:
        """The last deconvolution, fixed to bilinear interpolation as in the paper (section 4.3)."""
        return [self._last_deconvolution().get_parameter("weight")]

    def learning_rate_factors(self, options: Mapping[str, Any]) -> dict[nn.Parameter, float]:
        """`skip_rates` for score_pool4 and score_pool3, if the skips are scaled."""
        if not self.at_once:
            return {}
        skips = zip(("score_pool4", "score_pool3"), options["skip_rates"], strict=True)
        return {
            getattr(self, name).weight: factor
            for name, factor in skips
            if hasattr(self, name)  # FCN-32s has neither, FCN-16s has no score_pool3
        }

    def _last_deconvolution(self) -> nn.ConvTranspose2d:
        name = "upscore" if self.stride == 32 else f"upscore{self.stride}"
        return cast(nn.ConvTranspose2d, getattr(self, name))

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            pixels: Normalised float (N, in_channels, H, W), any H, W >= 1.

        Returns:
            (N, num_classes, H, W), without softmax.
        """
        return self.at_stride(pixels, self.stride)

    def at_stride(self, pixels: Tensor, stride: int) -> Tensor:
        """Compute the logits without the skips that are finer than a prediction stride (Figure 4).

        Strides coarser than that of the network are upsampled bilinearly, as by the last
        deconvolution of the paper.

        Args:
            pixels: As for `forward`.
            stride: One of `prediction_strides`.

        Returns:
            (N, num_classes, H, W).

        Raises:
            ValueError: For another stride.
        """
        if stride not in self.prediction_strides:
            raise ValueError(f"stride must be one of {self.prediction_strides}, got {stride}")
        x = relu_(self.conv1_1(pixels))
        x = relu_(self.conv1_2(x))
        x = self.pool(x)  # 1/2
        x = relu_(self.conv2_1(x))
        x = relu_(self.conv2_2(x))
        x = self.pool(x)  # 1/4
        x = relu_(self.conv3_1(x))
        x = relu_(self.conv3_2(x))
        x = relu_(self.conv3_3(x))
        pool3 = self.pool(x)  # 1/8
        x = relu_(self.conv4_1(pool3))
        x = relu_(self.conv4_2(x))
        x = relu_(self.conv4_3(x))
        pool4 = self.pool(x)  # 1/16
        x = relu_(self.conv5_1(pool4))
        x = relu_(self.conv5_2(x))
        x = relu_(self.conv5_3(x))
        x = self.pool(x)  # 1/32

        x = self.drop(relu_(self.fc6(x)))
        x = self.drop(relu_(self.fc7(x)))
        score = self.score_fr(x)  # 1/32, num_classes
        margin = 3 - self.fc6_padding
        if stride == 32:
            return self._upsampled_to(pixels, score, stride, margin)

        score_pool4 = self.score_pool4(pool4 * (0.01 if self.at_once else 1.0))
        score, margin = fuse(self.upscore2(score), score_pool4, margin)  # 1/16
        if stride == 16:
            return self._upsampled_to(pixels, score, stride, margin)

        score_pool3 = self.score_pool3(pool3 * (0.0001 if self.at_once else 1.0))
        score, margin = fuse(self.upscore_pool4(score), score_pool3, margin)  # 1/8
        return self._upsampled_to(pixels, score, stride, margin)

    def _upsampled_to(self, pixels: Tensor, score: Tensor, stride: int, margin: int) -> Tensor:
        """Upsample the scores by `stride` and crop them to the image.

        A feature with index j at stride s is centred at pixel s j + (s - 1)/2 + 1 - p, where p is
        the padding of conv1_1. The deconvolution centres score i = j - margin at s i + s - 1/2.
        Their difference is the crop: s/2 - 1 + p - s margin. For p = 100, the margins are 3, 5 and
        9, and the crops are those of the authors: 19, 27 and 31.
        """
        if stride == self.stride:
            upscore = self._last_deconvolution()(score)
        else:
            kernel = bilinear_kernel(self.num_classes, 2 * stride).to(score)
            upscore = conv_transpose2d(score, kernel, stride=stride)
        offset = stride // 2 - 1 + self.conv1_1_padding - stride * margin
        height, width = pixels.shape[-2:]
        return upscore[..., offset : offset + height, offset : offset + width]


def fuse(upscore: Tensor, skip: Tensor, margin: int) -> tuple[Tensor, int]:
    """Add the upsampled coarser scores and the scores of a skip where they overlap.

    Args:
        upscore: (N, num_classes, h, w), the coarser scores, upsampled by 2.
        skip: (N, num_classes, h', w'), the scores of the skip.
        margin: Index of the first coarser score in its layer.

    Returns:
        The sum, and its margin: index 0 of the sum is index `margin` of the skip's layer.

    The deconvolution (kernel 4, stride 2) centres score i at 2 i + 3/2, and feature j of the
    coarser layer is centred at 2 j + 1/2 in the layer of the skip. Hence `upscore` begins at 2
    margin - 1: the authors' crops 5 (pool4) and 9 (pool3), or -1 if fc6 is padded.
    """
    offset = 2 * margin - 1
    if offset < 0:
        height, width = skip.shape[-2:]
        return upscore[..., -offset : height - offset, -offset : width - offset] + skip, 0
    height, width = upscore.shape[-2:]
    return upscore + skip[..., offset : offset + height, offset : offset + width], offset


def deconvolution(channels: int, *, stride: int) -> nn.ConvTranspose2d:
    """Transposed convolution that upsamples by `stride`, without bias. Its kernel size of 2 strides
    is that of bilinear interpolation."""
    return nn.ConvTranspose2d(channels, channels, 2 * stride, stride=stride, bias=False)


def bilinear_kernel(channels: int, size: int) -> Tensor:
    """Return the weights (channels, channels, size, size) for which a deconvolution with even
    kernel `size` and stride size / 2 interpolates each channel bilinearly. Always on the CPU."""
    stride = size / 2
    ramp = 1 - (torch.arange(size, device="cpu") - (size - 1) / 2).abs() / stride
    return torch.eye(channels, device="cpu")[:, :, None, None] * torch.outer(ramp, ramp)
