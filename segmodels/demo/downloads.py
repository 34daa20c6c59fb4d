"""The downloads of a comparison: full-size files, an image to share, and code that reproduces the
class maps."""

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
    """Write the class map as an indexed PNG whose metadata names the classes and the model."""
    path = folder / f"{stem}_{result.network.file_name}.png"
    metadata = {"model": public_source(result.network), "revision": revision(result.network)}
    result.segmentation.save(path, metadata=metadata)
    return path


def files(
    folder: Path, stem: str, scene: str, answers: Sequence[ModelResult | ModelFailure]
) -> list[Path]:
    """Write all files of a comparison and return their paths.

    The ZIP archive of all files comes first, then the class map and overlay of each result (named
    as by `segmodels predict`, with the model's name appended to the image's), the classes and the
    metrics as JSON, and the comparison as a single image.
    """
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
    """Write the comparison as a single PNG."""
    path = folder / f"{stem}_comparison.png"
    save_png(comparison_image(results), path)
    return path


def classes_of(network: ServedModel) -> dict[str, Any]:
    """Return a JSON-serializable description of a network and its class ids."""
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
    """Return the version of the model: the SHA-256 of its weights file for a local folder, or else
    the commit of its Hub repository if the cache records it."""
    folder = Path(network.source)
    if folder.is_dir():
        return f"sha256:{file_digest(folder / WEIGHTS_NAME)}"
    return network.revision


def _archive(path: Path, paths: Sequence[Path]) -> Path:
    """Write a ZIP archive of the files without compression; they are already compressed."""
    with atomic_write(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for file in paths:
            archive.write(file, file.name)
    return path


# ---- code ----


def snippet(networks: Sequence[ServedModel], image: str) -> str:
    """Return Python code that reproduces the class maps exactly on a comparable machine."""
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
    """Return the Hub id, or the last two components of the folder's path."""
    return "/".join(Path(network.source).parts[-2:])


# ---- the image to share: the input, each network's overlay, and the legend ----

WIDTH = 1600
STYLE = SheetStyle(margin=32, gap=20, title_size=40, label_size=26, small_size=22)
PANORAMA = 2.4  # aspect ratio (width / height) from which panels are stacked vertically


def comparison_image(results: Sequence[ModelResult], opacity: float = 0.6) -> Image.Image:
    """Return the comparison as an RGB image about `WIDTH` pixels wide.

    Args:
        results: At least one result, all for the same image.
        opacity: Opacity of the overlays.
    """
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
    """Return the number of columns: up to 4 for upright images, 2 for wide ones, 1 for
    panoramas."""
    height, width = segmentation.class_map.shape
    if width >= PANORAMA * height:
        return 1
    return min(count, 2 if width > height else 4)


def fitted(image: Image.Image, width: int) -> Image.Image:
    """Resize the image to `width` pixels; the height is limited to four times the width."""
    height = min(4 * width, max(1, round(image.height * width / image.width)))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def legend_entries(segmentations: Sequence[LabeledImage]) -> list[LegendEntry]:
    """Return the classes found in any segmentation, largest first, without background."""
    areas: dict[LegendEntry, float] = {}
    for segmentation in segmentations:
        colors = dict(zip(segmentation.class_names, segmentation.palette, strict=True))
        for name, share in segmentation.areas().items():
            if share and not is_background(name):
                key = (name, tuple(colors[name]))
                areas[key] = areas.get(key, 0.0) + share
    return sorted(areas, key=lambda key: -areas[key])
