"""What several tests share: a tiny data set of three classes, in both layouts."""

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from segmodels import FCN, Segmenter, SegNet, UNet
from segmodels.demo.service import Host
from segmodels.inference.comparison import Network
from segmodels.models.vgg16 import LAYERS
from segmodels.training.config import TrainingConfig
from segmodels.training.runner import train
from segmodels.training.trainer import Trainer
from segmodels.utils.distributed import accelerator_for
from tests.support.hub_client import Client
from tests.support.hub_server import LoopbackHub
from tests.support.hub_state import User
from tests.support.pages import address, browser, page, served, tiny_address  # noqa: F401

CLASS_NAMES = ["ground", "wall", "sky"]
COLORS = np.array([[90, 60, 40], [200, 30, 30], [120, 180, 250]])
WIDTH, HEIGHT = 48, 40
# The files of a finished training.
RESULT = {
    "README.md",
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "preprocessor_config.json",
    "training.json",
}


def synthetic_pair(seed: int, void_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(40, 48, 3) picture and (40, 48) ids: sky over ground, a wall, a row of void on top."""
    random = np.random.default_rng(seed)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[: random.integers(12, 24)] = 2
    left = random.integers(4, 24)
    ids[random.integers(6, 14) : 32, left : left + 16] = 1
    picture = COLORS[ids] + random.integers(-20, 21, (HEIGHT, WIDTH, 3))
    ids[0] = void_id
    return picture.clip(0, 255).astype(np.uint8), ids


def write_camvid(root: Path, **splits: int) -> Path:
    """SegNet's layout, void being the id after the last class."""
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for first_seed, (split, count) in enumerate(splits.items()):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir()
        for number in range(count):
            picture, ids = synthetic_pair(100 * first_seed + number, void_id=len(CLASS_NAMES))
            Image.fromarray(picture).save(root / split / f"{number:03}.png")
            Image.fromarray(ids).save(root / f"{split}annot" / f"{number:03}.png")
    return root


def write_msrc(root: Path, **splits: int) -> Path:
    """MSRC's layout, void being 255 and the labels palette pictures."""
    for folder in (root, root / "images", root / "labels"):
        folder.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for first_seed, (split, count) in enumerate(splits.items()):
        stems = [f"{split}_{number}" for number in range(count)]
        (root / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in enumerate(stems):
            picture, ids = synthetic_pair(100 * first_seed + number, void_id=255)
            Image.fromarray(picture).save(root / "images" / f"{stem}.png")
            label = Image.fromarray(ids)
            label.putpalette(COLORS.astype(np.uint8).tobytes().ljust(768, b"\0"))
            label.save(root / "labels" / f"{stem}.png")
    return root


def config_for(folder: Path, **options: object) -> TrainingConfig:
    """Three epochs of a tiny U-Net, of three steps each on six pictures."""
    tiny = {"epochs": 3, "batch_size": 2, "crop": (32, 32), "base_channels": 2, "warmup_steps": 2}
    return TrainingConfig("unet", str(folder), **{**tiny, "decoder_lr": 0.01, **options})


def tiny_trainer(folder: Path, **options: object) -> Trainer:
    return trainer_for(config_for(folder, **options))


def trainer_for(config: TrainingConfig) -> Trainer:
    return Trainer(config, accelerator_for("cpu", config.precision))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Three epochs, the first at half the size, of three steps each."""
    folder = write_camvid(tmp_path_factory.mktemp("data") / "camvid", train=6, val=2)
    tiny = {"epochs": 3, "half_size_epochs": 1, "batch_size": 2, "crop": (32, 32)}
    return TrainingConfig(
        "unet", str(folder), base_channels=2, dropout=0.2, decoder_lr=0.01, **tiny
    )


@pytest.fixture(scope="session")
def finished(config, tmp_path_factory):
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("out") / "uninterrupted"
    train(config, out, validate_every=2)
    return out


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """6 pictures for training, 2 for validation, 2 for testing, 48 x 40 pixels."""
    return write_camvid(tmp_path / "camvid", train=6, val=2, test=2)


@pytest.fixture
def msrc(tmp_path: Path) -> Path:
    """The same pictures in the other layout."""
    return write_msrc(tmp_path / "msrc", train=6, val=2, test=2)


@pytest.fixture(scope="session")
def vgg16_file(tmp_path_factory):
    """Weights of VGG16's shape with nothing learnt in them."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    tensors = {}
    torch.manual_seed(0)
    for name, before, after in zip(LAYERS, widths[:-1], widths[1:], strict=True):
        scale = (2 / (9 * before)) ** 0.5
        tensors[f"{name}.weight"] = (scale * torch.randn(after, before, 3, 3)).half()
        tensors[f"{name}.bias"] = torch.zeros(after).half()
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.fixture(scope="session")
def hub():
    """A Hub on the loopback interface. Alice may write to org, Bob may only read there."""
    users = {
        "alice-token": User("alice", writes=("alice", "org")),
        "bob-token": User("bob", writes=("bob",), reads=("org",)),
    }
    server = LoopbackHub(users)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(hub, tmp_path_factory):
    """The real client, logged in as nobody."""
    process = Client(hub.url, tmp_path_factory.mktemp("hf-home"))
    yield process
    process.close()


def tiny_network(kind, name, scene="road", class_names=("road", "sky", "car"), **arguments):
    """A served network of few weights, whose answers vary over the picture."""
    small = {FCN: {"head_channels": 8}, UNet: {"base_channels": 2}, SegNet: {"variant": "basic"}}
    torch.manual_seed(len(name))
    model = kind(class_names=list(class_names), **{**small[kind], **arguments})
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer_name.startswith("score"):
            nn.init.normal_(layer.weight, std=0.1)
    return Network(name, scene, Segmenter(model.eval(), "cpu", "fp32"), f"weights_card/{name}")


def unpacked(panel, number=0):
    """A map of a viewer's panel as the browser sees it, (h, w)."""
    width, height = panel["size"]
    ids = zlib.decompress(base64.b64decode(panel["maps"][number]))
    return np.frombuffer(ids, np.uint8).reshape(height, width)


@pytest.fixture(scope="session")
def networks():
    """One of each for the road scene, and one for another."""
    return [
        tiny_network(FCN, "fcn-camvid", at_once=False),
        tiny_network(UNet, "unet-camvid"),
        tiny_network(SegNet, "segnet-camvid", dropout=0.5),
        tiny_network(UNet, "unet-msrc", "everyday", ["cat", "dog", "sky"]),
    ]


@pytest.fixture
def host(networks):
    return Host(networks)


@pytest.fixture
def street(tmp_path):
    """A picture file, 60 x 40 pixels."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 8, 3), np.uint8)
    path = tmp_path / "my street.png"
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return str(path)
