"""Tiny datasets of three classes, in two layouts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASS_NAMES = ["ground", "wall", "sky"]
COLORS = np.array([[90, 60, 40], [200, 30, 30], [120, 180, 250]])
WIDTH, HEIGHT = 48, 40


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


def write_camvid(root: Path, *, class_names: Sequence[str] = CLASS_NAMES, **splits: int) -> Path:
    """SegNet's layout, void being the id after the last class."""
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(class_names) + "\n", encoding="utf-8")
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


def write_unlisted(root: Path, stems: Sequence[str], labels: str = "masks") -> Path:
    """images/ and masks/ without lists."""
    for folder in (root, root / "images", root / labels):
        folder.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for seed, stem in enumerate(stems):
        picture, ids = synthetic_pair(seed, void_id=255)
        Image.fromarray(picture).save(root / "images" / f"{stem}.png")
        Image.fromarray(ids).save(root / labels / f"{stem}.png")
    return root
