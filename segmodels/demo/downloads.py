"""The downloads of a comparison: files at the image's full size, one image to share, and the code
that computes the same."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segmodels.demo import strings
from segmodels.hub.filenames import WEIGHTS_NAME
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    agreement,
    comparable,
    results_of,
    summary,
)
from segmodels.inference.decoded_image import file_digest
from segmodels.inference.results import LabeledImage, save_png
from segmodels.utils.contact_sheet import LegendEntry, SheetStyle, Tile, contact_sheet
from segmodels.utils.files import atomic_write, write_text
from segmodels.utils.palette import is_background

# ---- files ----


def class_map_file(folder: Path, stem: str, result: ModelResult) -> Path:
    """The class map as an indexed PNG whose metadata names the classes and the model."""
    path = folder / f"{stem}_{result.network.file_name}.png"
    metadata = {"model": public_source(result.network), "revision": revision(result.network)}
    result.segmentation.save(path, metadata=metadata)
    return path


def files(
    folder: Path, stem: str, scene: str, answers: Sequence[ModelResult | ModelFailure]
) -> list[Path]:
    """For each result its class map and its overlay, named as `segmodels predict` names them with
    the model's name behind the image's; then what the ids mean, the metrics, the comparison as one
    image, and all of them as one ZIP archive, which comes first."""
    results = results_of(answers)
    paths = []
    for result in results:
        paths.append(class_map_file(folder, stem, result))
        paths.append(folder / f"{stem}_{result.network.file_name}_overlay.png")
        save_png(result.segmentation.overlay(), paths[-1], fast=True)
    classes = {result.network.name: classes_of(result.network) for result in results}
    for name, content in (("classes", classes), ("summary", summary(scene, answers))):
        paths.append(folder / f"{stem}_{name}.json")
        write_text(paths[-1], json.dumps(content, indent=2) + "\n")
    paths.append(comparison_file(folder, stem, results))
    return [_archive(folder / f"{stem}_segmodels.zip", paths), *paths]


def comparison_file(folder: Path, stem: str, results: Sequence[ModelResult]) -> Path:
    """The comparison as one PNG."""
    path = folder / f"{stem}_comparison.png"
    save_png(comparison_image(results), path)
    return path


def classes_of(network: ServedModel) -> dict[str, Any]:
    """What the ids of a network's class maps mean, and which network it is; JSON-able."""
    model = network.model
    colored = zip(model.class_names, model.palette, strict=True)
    return {
        "model": public_source(network),
        "revision": revision(network),
        "classes": [
            {"id": number, "name": name, "color": list(map(int, color))}
            for number, (name, color) in enumerate(colored)
        ],
    }


def revision(network: ServedModel) -> str:
    """Which version of the model it is: the commit of its Hub repository where the cache tells it,
    or else the SHA-256 of its weights file."""
    folder = Path(network.source)
    if folder.is_dir():
        return f"sha256:{file_digest(folder / WEIGHTS_NAME)}"
    return network.revision


def _archive(path: Path, paths: Sequence[Path]) -> Path:
    """A ZIP archive of the files, which are compressed already."""
    with atomic_write(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for file in paths:
            archive.write(file, file.name)
    return path


# ---- code ----


def snippet(networks: Sequence[ServedModel], image: str) -> str:
    """Python that computes the same class maps, to the pixel, on a like machine."""
    kinds = sorted({type(network.model).__name__ for network in networks} | {"Segmenter"})
    lines = "\n".join(
        f'    "{network.file_name}": {type(network.model).__name__}.from_pretrained'
        f"({json.dumps(public_source(network))}),"
        for network in networks
    )
    segmenter = networks[0].segmenter
    options = f'device="{segmenter.device.type}", precision="{segmenter.precision}"'
    return f"""from segmodels import {", ".join(kinds)}

models = {{
{lines}
}}
for name, model in models.items():
    segmenter = Segmenter(model, {options})
    result = segmenter({json.dumps(image)})
    result.save(f"{{name}}.png")  # pixel value = class id, palette embedded
    print(name, result.areas())
"""


def public_source(network: ServedModel) -> str:
    """The Hub id, or the last two names of the folder's path, as seen from the repository."""
    return "/".join(Path(network.source).parts[-2:])


# ---- one image to share: the image, each network's overlay, and the legend ----

WIDTH = 1600
STYLE = SheetStyle(margin=32, gap=20, title_size=40, label_size=26, small_size=22)
PANORAMA = 2.4  # of width to height, from which on the panels lie below each other


def comparison_image(results: Sequence[ModelResult], opacity: float = 0.6) -> Image.Image:
    """RGB, about WIDTH pixels wide. `results` are of one image, at least one."""
    first = results[0].segmentation
    columns = columns_for(first, len(results) + 1)
    width = (WIDTH - 2 * STYLE.margin - (columns - 1) * STYLE.gap) // columns
    tiles = [Tile(fitted(first.image, width), "Image")]
    for result in results:
        overlay = fitted(result.segmentation.overlay(opacity), width)
        tiles.append(Tile(overlay, result.network.title, f"{result.seconds:.2f} s, one run"))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    titles = [result.network.title for result in results]
    title = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
    note = strings.agreement(agreement(comparable(results))) if len(results) > 1 else ""
    legend = legend_entries([result.segmentation for result in results])
    return contact_sheet(rows, legend=legend, title=title, title_note=note, style=STYLE)


def columns_for(segmentation: LabeledImage, count: int) -> int:
    """Upright images side by side, wide ones in two columns, panoramas in one."""
    height, width = segmentation.class_map.shape
    if width >= PANORAMA * height:
        return 1
    return min(count, 2 if width > height else 4)


def fitted(image: Image.Image, width: int) -> Image.Image:
    """The image at `width` pixels, at most four times as high."""
    height = min(4 * width, max(1, round(image.height * width / image.width)))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def legend_entries(segmentations: Sequence[LabeledImage]) -> list[LegendEntry]:
    """The classes that any of them has, the largest first; no background."""
    areas: dict[LegendEntry, float] = {}
    for segmentation in segmentations:
        colors = dict(zip(segmentation.class_names, segmentation.palette, strict=True))
        for name, share in segmentation.areas().items():
            if share and not is_background(name):
                key = (name, tuple(colors[name]))
                areas[key] = areas.get(key, 0.0) + share
    return sorted(areas, key=lambda key: -areas[key])
