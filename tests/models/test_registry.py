"""The registry: a fourth network is one class and one registration."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segmodels import FCN, Segmenter, SegNet, UNet, load_model
from segmodels.cli.main import main
from segmodels.demo.service import ComparisonService
from segmodels.inference.comparison import load_networks
from segmodels.inference.results import LabeledImage
from segmodels.models.base import Paper, SegmentationModel
from segmodels.models.registry import (
    architectures,
    model_class,
    model_classes,
    register_model,
    unregister_model,
)

CLASSES = ["road", "sky", "car"]


class Toy(SegmentationModel):
    """Two convolutions."""

    display_name = "Toy"
    paper = Paper("Doe and Roe", "2026-01", "https://example.org/toy")

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        in_channels: int = 3,
        dropout: float = 0.5,
        palette: Sequence[Sequence[int]] | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        working_size: int | None = None,
    ) -> None:
        super().__init__(
            class_names=class_names,
            in_channels=in_channels,
            palette=palette,
            image_mean=image_mean,
            image_std=image_std,
            working_size=working_size,
        )
        self.dropout = dropout
        self.features = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.scores = nn.Conv2d(4, self.num_classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.scores(self.drop(torch.relu(self.features(pixels))))


@pytest.fixture
def toy():
    yield register_model("toy")(Toy)
    unregister_model("toy")


def test_the_networks_are_listed_in_the_order_of_publication(toy):
    assert architectures() == ["fcn", "unet", "segnet", "toy"]
    assert model_classes() == [FCN, UNet, SegNet, Toy]
    assert model_class("toy") is Toy


def test_an_unknown_network_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no network 'u-net': choose one of fcn, unet, segnet"):
        model_class("u-net")


@pytest.mark.parametrize("name", ["unet", "Toy", "to-y", ""])
def test_a_name_that_is_taken_or_not_a_lower_case_word_is_refused(name):
    with pytest.raises(ValueError, match=r"belongs to|lower-case letters and digits"):
        register_model(name)(Toy)
    assert "Toy" not in [one.__name__ for one in model_classes()]


def test_a_fourth_network_is_saved_and_loaded(toy, tmp_path):
    model = Toy(class_names=CLASSES, dropout=0.25).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Toy"]
    loaded = load_model(tmp_path)
    assert type(loaded) is Toy
    assert loaded.config == model.config
    pixels = torch.randn(1, 3, 7, 9)
    assert torch.equal(loaded(pixels), model(pixels))


def test_a_fourth_network_segments_whole_tiled_and_by_samples(toy):
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (70, 640, 3), np.uint8)
    model = Toy(class_names=CLASSES)
    whole = Segmenter(model, "cpu", "fp32")(image)
    tile_size = 2 * model.tile_context + 32
    tiled = Segmenter(model, "cpu", "fp32", tile_size=tile_size)(np.tile(image, (8, 1, 1)))
    assert np.array_equal(tiled.class_map[:69], whole.class_map[:69])
    assert Segmenter(model, "cpu", "bf16")(image).class_map.shape == (70, 640)
    assert Segmenter(model, "cpu")(image, samples=3).uncertainty.max() > 0


def test_a_fourth_network_is_trained_measured_and_shown(toy, camvid, tmp_path, capsys):
    """By the commands, and then by the page's service."""
    out = tmp_path / "toy-camvid"
    command = ["train", "toy", "--data", str(camvid), "--out", str(out), "--device", "cpu"]
    options = ["--epochs", "1", "--batch-size", "2", "--crop", "32", "32", "--precision", "fp32"]
    assert main([*command, *options]) == 0, capsys.readouterr().err
    assert json.loads((out / "training.json").read_text())["network"] == "toy"
    (out / "README.md").unlink(missing_ok=True)

    measure = ["evaluate", "--model", str(out), "--data", str(camvid), "--split", "test", "--card"]
    assert main(measure) == 0, capsys.readouterr().err
    card = (out / "README.md").read_text()
    assert "Toy ([Doe and Roe, 2026](https://example.org/toy))" in card
    assert "segmodels train toy" in card

    path = next(Path(camvid).glob("test/*.png"))
    networks = load_networks([str(out)], "cpu")
    service = ComparisonService(networks)
    session = service.run(str(path), [networks[0].source], networks[0].scene)
    answer = session.answers(service.network)[0]
    assert isinstance(answer.segmentation, LabeledImage)
    with Image.open(path) as image:
        assert answer.segmentation.class_map.shape == image.size[::-1]
    *_, (view, _) = service.uncertainty(session, samples=2)
    assert view["panels"][0]["title"] == "Toy"
