"""torch.export with free height and width, as ONNX export and other compilers begin."""

import pytest
import torch
from torch.export import Dim

from segmodels import FCN, SegNet, UNet

CLASSES = ["sky", "road", "car"]
SMALL = {
    "FCN-8s": lambda: FCN(class_names=CLASSES, head_channels=4),
    "FCN-32s": lambda: FCN(class_names=CLASSES, head_channels=4, stride=32),
    "U-Net": lambda: UNet(class_names=CLASSES, base_channels=2),
    "unpadded U-Net": lambda: UNet(class_names=CLASSES, base_channels=2, padding="valid"),
    "U-Net on VGG16": lambda: UNet(class_names=CLASSES, encoder="vgg16"),
    "SegNet": lambda: SegNet(class_names=CLASSES, variant="vgg16"),
    "SegNet-Basic": lambda: SegNet(class_names=CLASSES, variant="basic", dropout=0.5),
}


@pytest.mark.parametrize("name", SMALL)
def test_an_exported_network_takes_any_height_and_width(name):
    torch.manual_seed(0)
    model = SMALL[name]().eval()
    sizes = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        height, width = (208, 224) if name == "unpadded U-Net" else (48, 64)
        example = torch.randn(1, 3, height, width)
        exported = torch.export.export(model, (example,), dynamic_shapes=[sizes])
        for higher, wider in ((0, 0), (49, -3), (16, 37)):
            pixels = torch.randn(1, 3, height + higher, width + wider)
            torch.testing.assert_close(exported.module()(pixels), model(pixels))


def test_the_weights_of_a_u_net_bear_the_names_and_shapes_that_published_files_have():
    state = UNet(class_names=CLASSES, base_channels=2).state_dict()
    names = [name for name in state if name.startswith("encoder1.")]
    convolutions = [f"encoder1.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(names) == {*convolutions, *(f"encoder1.{i}.{s}" for i in (1, 4) for s in statistics)}
    assert state["encoder1.0.weight"].shape == (2, 3, 3, 3)
