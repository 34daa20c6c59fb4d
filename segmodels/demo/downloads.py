"""What a visitor takes away: files at the picture's full size, and the code that makes them."""

import json
from collections.abc import Sequence
from pathlib import Path

from segmodels.demo.share import comparison_picture
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    results_of,
    summary,
)
from segmodels.inference.optimize import PRECISIONS
from segmodels.inference.results import save_png
from segmodels.utils.files import write_text


def comparison_file(folder: Path, stem: str, results: Sequence[ModelResult]) -> Path:
    """The comparison as one PNG."""
    path = folder / f"{stem}_comparison.png"
    save_png(comparison_picture(results), path)
    return path


def files(
    folder: Path, stem: str, scene: str, answers: Sequence[ModelResult | ModelFailure]
) -> list[Path]:
    """For each result its class ids (exact, palette embedded) and its overlay, then the summary as
    JSON; all in `folder`."""
    paths = []
    for result in results_of(answers):
        name = f"{stem}_{result.network.name}"
        paths += [folder / f"{name}_class-ids.png", folder / f"{name}_overlay.png"]
        result.segmentation.save(paths[-2])
        save_png(result.segmentation.overlay(), paths[-1], fast=True)
    paths.append(folder / f"{stem}_summary.json")
    write_text(paths[-1], json.dumps(summary(scene, answers), indent=2) + "\n")
    return paths


def snippet(networks: Sequence[ServedModel], picture: str) -> str:
    """Python that makes the same class-id PNGs, to the pixel, on a like machine."""
    kinds = sorted({type(network.model).__name__ for network in networks} | {"Segmenter"})
    lines = "\n".join(
        f'    "{network.name}": {type(network.model).__name__}.from_pretrained'
        f"({public_source(network)!r}),".replace("'", '"')
        for network in networks
    )
    segmenter = networks[0].segmenter
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == segmenter.dtype)
    return f"""from segmodels import {", ".join(kinds)}

models = {{
{lines}
}}
for name, model in models.items():
    segmenter = Segmenter(model, device="{segmenter.device.type}", precision="{precision}")
    result = segmenter({json.dumps(picture)})
    result.save(f"{{name}}.png")  # pixel value = class id, palette embedded
    print(name, result.areas())
"""


def public_source(network: ServedModel) -> str:
    """The Hub id, or the last two names of the folder's path, as seen from the repository."""
    return "/".join(Path(network.source).parts[-2:])
