"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

Ronneberger, Fischer and Brox, MICCAI 2015, https://arxiv.org/abs/1505.04597. Figure 1 shows the
network. `UNet(class_names=..., in_channels=1, padding="valid", batch_norm=False)` is the one in the
paper, 572 x 572 -> 388 x 388.

Differences from the paper, all optional: `padding="same"` keeps the size of the image; batch
normalisation, which the paper does not use; `encoder="vgg16"` uses VGG16's 13 convolutions as the
contracting path (64, 128, 256, 512, 512 channels), so that it can be initialised from ImageNet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from segmodels.models._validation import checked_bool, checked_choice, checked_int, checked_rate
from segmodels.models.base import Paper, SegmentationModel
from segmodels.models.registry import register_model

MAX_BASE_CHANNELS = 512  # eight times the paper's


@register_model("unet")
class UNet(SegmentationModel):
    """U-Net.

    Args:
        class_names: The classes in the order of their ids.
        in_channels: Number of input channels.
        encoder: "plain", the paper's two convolutions per level, or "vgg16".
        base_channels: Channels of the plain encoder's first level, doubled at each level; at most
            512.
        padding: "same", or "valid" for the paper's unpadded convolutions.
        batch_norm: Whether each 3x3 convolution is followed by batch normalisation.
        dropout: Dropout rate at the end of the contracting path (section 3.1): after its last two
            levels, as in the authors' network.
        palette: [r, g, b] in 0..255 for each class; None: chosen by class name.
        image_mean: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        image_std: One number per channel, for pixels in [0, 1]; None: ImageNet's.
        working_size: Longer side, in pixels, that images are resized to; None: not resized.
        minimum_size: Without a working size, the longer side, in pixels, that smaller images are
            enlarged to; None: they are not.

    Examples:
        >>> import torch
        >>> from segmodels import UNet
        >>> model = UNet(class_names=["cell", "background"], base_channels=4).eval()
        >>> model(torch.randn(1, 3, 60, 80)).shape
        torch.Size([1, 2, 60, 80])
        >>> paper = UNet(class_names=["cell", "background"], in_channels=1, padding="valid",
        ...              batch_norm=False)
        >>> paper.input_size_for(388)
        (572, 92)
    """

    display_name = "U-Net"
    paper = Paper("Ronneberger, Fischer and Brox", "2015-10", "https://arxiv.org/abs/1505.04597")

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int = 3,
        encoder: str = "plain",
        base_channels: int = 64,
        padding: str = "same",
        batch_norm: bool = True,
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
        self.encoder = checked_choice("encoder", encoder, ("plain", "vgg16"))
        self.base_channels = checked_int("base_channels", base_channels, MAX_BASE_CHANNELS)
        self.padding = checked_choice("padding", padding, ("same", "valid"))
        self.batch_norm = checked_bool("batch_norm", batch_norm)
        self.dropout = checked_rate("dropout", dropout)

        if encoder == "vgg16":
            c1, c2, c3, c4, c5 = 64, 128, 256, 512, 512
            self.depths = (2, 2, 3, 3, 3)
        else:
            c1, c2, c3, c4, c5 = (base_channels * 2**level for level in range(5))
            self.depths = (2, 2, 2, 2, 2)

        def convolutions(channels_in: int, channels: int, depth: int = 2) -> nn.Sequential:
            # 1 instead of "same", which torch.export does not support for dynamic sizes.
            border = 1 if padding == "same" else 0
            return conv_block(channels_in, channels, depth, padding=border, batch_norm=batch_norm)

        self.encoder1 = convolutions(in_channels, c1, self.depths[0])
        self.encoder2 = convolutions(c1, c2, self.depths[1])
        self.encoder3 = convolutions(c2, c3, self.depths[2])
        self.encoder4 = convolutions(c3, c4, self.depths[3])
        self.encoder5 = convolutions(c4, c5, self.depths[4])
        # Padded: odd sizes are rounded up, and upsampled maps are cropped. Unpadded: they are
        # rounded down, which keeps the centre crops of the skips aligned.
        self.pool = nn.MaxPool2d(2, ceil_mode=padding == "same")
        self.drop = nn.Dropout(dropout)

        self.upconv4 = nn.ConvTranspose2d(c5, c4, 2, stride=2)
        self.decoder4 = convolutions(2 * c4, c4)
        self.upconv3 = nn.ConvTranspose2d(c4, c3, 2, stride=2)
        self.decoder3 = convolutions(2 * c3, c3)
        self.upconv2 = nn.ConvTranspose2d(c3, c2, 2, stride=2)
        self.decoder2 = convolutions(2 * c2, c2)
        self.upconv1 = nn.ConvTranspose2d(c2, c1, 2, stride=2)
        self.decoder1 = convolutions(2 * c1, c1)
        self.heatmaps = nn.Conv2d(c1, self.num_classes, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise with Gaussian weights of standard deviation sqrt(2 / fan-in) (section 3) and
        zero biases."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @classmethod
    def arguments_from(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """As in the base class, with a VGG16 encoder if there are `vgg16` weights to start from."""
        encoder = "vgg16" if options.get("vgg16") else "plain"
        return {"encoder": encoder} | super().arguments_from(options)

    @property
    def keeps_size(self) -> bool:
        return self.padding == "same"

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            pixels: Normalised float (N, in_channels, H, W), any H, W >= 1.

        Returns:
            (N, num_classes, H, W), without softmax; with padding="valid", smaller as in Figure 1.

        Raises:
            ValueError: If the network is unpadded and the input is too small for any output.
        """
        if self.padding == "valid":
            self._check_valid_size(*pixels.shape[-2:])
        skip1 = self.encoder1(pixels)
        skip2 = self.encoder2(self.pool(skip1))  # 1/2
        skip3 = self.encoder3(self.pool(skip2))  # 1/4
        skip4 = self.drop(self.encoder4(self.pool(skip3)))  # 1/8
        x = self.drop(self.encoder5(self.pool(skip4)))  # 1/16
        x = self.decoder4(self._concatenate(skip4, self.upconv4(x)))  # 1/8
        x = self.decoder3(self._concatenate(skip3, self.upconv3(x)))  # 1/4
        x = self.decoder2(self._concatenate(skip2, self.upconv2(x)))  # 1/2
        x = self.decoder1(self._concatenate(skip1, self.upconv1(x)))
        return self.heatmaps(x)

    def _concatenate(self, skip: Tensor, x: Tensor) -> Tensor:
        """Concatenate a skip and an upsampled map along the channels. Unpadded, the skip is larger
        and is cropped to its centre; padded, `x` can have an extra row or column, which is cropped.
        """
        if self.padding == "valid":
            return torch.cat([center_crop(skip, *x.shape[-2:]), x], dim=1)
        return torch.cat([skip, crop(x, *skip.shape[-2:])], dim=1)

    def _check_valid_size(self, height: int, width: int) -> None:
        if valid_output_size(min(height, width), self.depths) < 1:
            smallest = next(n for n in range(1, 1000) if valid_output_size(n, self.depths) > 0)
            raise ValueError(
                f"an unpadded U-Net has no output for an input of {height} x {width} pixels: it "
                f'needs at least {smallest} x {smallest}; use a larger input or padding="same"'
            )

    def input_size_for(self, output_size: int) -> tuple[int, int]:
        """As in the base class; unpadded, the smallest input with even sizes at all poolings."""
        if self.keeps_size:
            return super().input_size_for(output_size)
        # Only one residue of the input size modulo 16 gives even sizes at all poolings; for the
        # paper's network, it is that of 572 (-> 388).
        even = next(n for n in range(1000, 1016) if self._halves_evenly(n))
        margin = (even - valid_output_size(even, self.depths)) // 2
        smallest = output_size + 2 * margin
        return smallest + (even - smallest) % 16, margin

    def _halves_evenly(self, size: int) -> bool:
        for depth in self.depths[:-1]:
            size -= 2 * depth
            if size % 2:
                return False
            size //= 2
        return True


def conv_block(
    channels_in: int, channels: int, depth: int, *, padding: int, batch_norm: bool
) -> nn.Sequential:
    """A sequence of `depth` 3x3 convolutions, each followed by optional batch normalisation and a
    ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(nn.Conv2d(channels_in, channels, 3, padding=padding))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU(inplace=True))
        channels_in = channels
    return nn.Sequential(*layers)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first `height` rows and `width` columns of (N, C, h, w)."""
    if torch.compiler.is_exporting():  # a slice would specialise on whether anything is cropped
        return pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
    return x[..., :height, :width]


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle `height` rows and `width` columns of (N, C, h, w)."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def valid_output_size(size: int, depths: Sequence[int]) -> int:
    """Compute the number of rows (or columns) of the unpadded network's logits.

    Each convolution removes a pixel on either side (Figure 1).

    Args:
        size: Number of rows of the input.
        depths: Number of convolutions per encoder level.

    Returns:
        Number of rows of the logits; less than 1 if the input is too small.

    Examples:
        >>> valid_output_size(572, (2, 2, 2, 2, 2))
        388
    """
    for depth in depths[:-1]:
        size = max(0, size - 2 * depth) // 2
    size -= 2 * depths[-1]
    for _ in depths[:-1]:
        size = 2 * size - 4
    return size
