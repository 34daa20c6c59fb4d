"""SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation.

Badrinarayanan, Kendall and Cipolla, TPAMI 2017, https://arxiv.org/abs/1511.00561. Figure 2 shows
the network, Figure 3 the unpooling. Dropout as in Bayesian SegNet (Kendall, Badrinarayanan and
Cipolla, BMVC 2017, https://arxiv.org/abs/1511.02680). Layers are named as in the authors' `segnet`.

Difference from the paper: SegNet-Basic's local response normalisation of the input is omitted;
images are normalised by `image_mean` and `image_std`, as for the other networks.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_unpool2d, relu

from segmodels.models._validation import checked_choice, checked_rate
from segmodels.models.base import Paper, SegmentationModel
from segmodels.models.registry import register_model


@register_model("segnet")
class SegNet(SegmentationModel):
    """SegNet, SegNet-Basic or, with dropout, Bayesian SegNet.

    Args:
        class_names: The classes in the order of their ids.
        in_channels: Number of input channels.
        variant: "vgg16": VGG16's 13 convolutions and a mirrored decoder; "basic": 4 encoders and 4
            decoders, each a 7x7 convolution to 64 channels, without ReLU in the decoders.
        dropout: Dropout rate after the third and deeper encoders and decoders (Bayesian SegNet:
            0.5).
        palette: [r, g, b] in 0..255 for each class; None: chosen by class name.
        image_mean: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        image_std: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        working_size: Longer side, in pixels, that images are resized to; None: not resized.
        minimum_size: Without a working size, the longer side, in pixels, that smaller images are
            enlarged to; None: they are not.

    Examples:
        >>> import torch
        >>> from segmodels import SegNet
        >>> model = SegNet(class_names=["road", "sky"], variant="basic").eval()
        >>> model(torch.randn(1, 3, 60, 80)).shape
        torch.Size([1, 2, 60, 80])
    """

    paper = Paper(
        "Badrinarayanan, Kendall and Cipolla", "2017-12", "https://arxiv.org/abs/1511.00561"
    )

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int = 3,
        variant: str = "vgg16",
        dropout: float = 0.0,
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
        self.variant = checked_choice("variant", variant, ("vgg16", "basic"))
        self.dropout = checked_rate("dropout", dropout)
        if variant == "vgg16":
            self._build_vgg16()
        else:
            self._build_basic()
        self.pool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True)
        self.drop = nn.Dropout(dropout)
        self._initialise()

    def _build_vgg16(self) -> None:
        self.encoders = nn.ModuleList(
            [
                stage("conv1_1 conv1_2", self.in_channels, 64, 64),
                stage("conv2_1 conv2_2", 64, 128, 128),
                stage("conv3_1 conv3_2 conv3_3", 128, 256, 256, 256),
                stage("conv4_1 conv4_2 conv4_3", 256, 512, 512, 512),
                stage("conv5_1 conv5_2 conv5_3", 512, 512, 512, 512),
            ]
        )
        self.decoders = nn.ModuleList(
            [
                stage("conv5_3_d conv5_2_d conv5_1_d", 512, 512, 512, 512),
                stage("conv4_3_d conv4_2_d conv4_1_d", 512, 512, 512, 256),
                stage("conv3_3_d conv3_2_d conv3_1_d", 256, 256, 256, 128),
                stage("conv2_2_d conv2_1_d", 128, 128, 64),
                stage("conv1_2_d", 64, 64),
            ]
        )
        self.conv1_1_d = nn.Conv2d(64, self.num_classes, 3, padding=1)

    def _build_basic(self) -> None:
        self.encoders = nn.ModuleList(
            [
                stage("conv1", self.in_channels, 64, kernel_size=7),
                stage("conv2", 64, 64, kernel_size=7),
                stage("conv3", 64, 64, kernel_size=7),
                stage("conv4", 64, 64, kernel_size=7),
            ]
        )
        self.decoders = nn.ModuleList(
            [
                stage("conv_decode4", 64, 64, kernel_size=7, activation=False),
                stage("conv_decode3", 64, 64, kernel_size=7, activation=False),
                stage("conv_decode2", 64, 64, kernel_size=7, activation=False),
                stage("conv_decode1", 64, 64, kernel_size=7, activation=False),
            ]
        )
        self.conv_classifier = nn.Conv2d(64, self.num_classes, 1)

    def _initialise(self) -> None:
        """Initialise weights as in He et al. (section 4.1), and biases with zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def display_name(self) -> str:
        return "SegNet" if self.variant == "vgg16" else "SegNet-Basic"

    def float32_layers(self) -> dict[str, str]:
        """Keep the encoder before pool1 in float32.

        With the 8 significant bits of bfloat16, neighbouring values are often equal. The indices of
        pool1, which determine the boundaries, then refer to the first of them instead of the
        largest: on CamVid, 0.9 % of the pixels change their class relative to float32, compared to
        0.4 % with this encoder in float32.
        """
        return {"encoders.0": "encoders.1"}

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            pixels: Normalised float (N, in_channels, H, W), any H, W >= 1.

        Returns:
            (N, num_classes, H, W), without softmax.
        """
        x = pixels
        depth = len(self.encoders)
        pool_indices, sizes = [], []
        for number, encoder in enumerate(self.encoders, start=1):
            x = encoder(x)
            sizes.append(x.shape[-2:])
            x, indices = self.pool(x)  # 1/2, 1/4, 1/8, 1/16, 1/32
            pool_indices.append(indices)
            x = self.drop(x) if number >= 3 else x

        for number, decoder in zip(range(depth, 0, -1), self.decoders, strict=True):
            x = max_unpool2d(x, pool_indices.pop(), (2, 2), output_size=sizes.pop())
            x = decoder(x)  # 1/16, 1/8, 1/4, 1/2, 1/1
            x = self.drop(x) if number >= 3 else x
        return self.conv1_1_d(x) if self.variant == "vgg16" else self.conv_classifier(x)


def stage(
    names: str, *channels: int, kernel_size: int = 3, activation: bool = True
) -> nn.Sequential:
    """A sequence of `ConvBN` with the given names; the i-th maps channels[i] to channels[i + 1]."""
    layers = OrderedDict[str, nn.Module]()
    for name, channels_in, channels_out in zip(names.split(), channels, channels[1:], strict=False):
        layers[name] = ConvBN(channels_in, channels_out, kernel_size, activation)
    return nn.Sequential(layers)


class ConvBN(nn.Module):
    """Padded convolution, batch normalisation and, if `activation`, ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, activation: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(channels_out)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return relu(x, inplace=True) if self.activation else x
