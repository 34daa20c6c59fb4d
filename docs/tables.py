"""Generate the tables of the README and the documentation from the weights and the code.

`python docs/tables.py` rewrites them in place between their marker comments;
tests/test_documentation.py checks that they are up to date.
"""

import json
from dataclasses import MISSING, fields
from math import prod
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import safe_open

from segmodels.evaluation.evaluator import NOT_JUDGED, SUMMARY_NAMES
from segmodels.evaluation.metrics import MAX_VOID_OUTLINE
from segmodels.evaluation.model_card import OUT_OF_DOMAIN, read_card_info, read_evaluation
from segmodels.models.registry import architectures
from segmodels.training.config import TrainingConfig
from segmodels.training.presets import PRESETS
from segmodels.utils.formatting import percent

ROOT = Path(__file__).resolve().parents[1]
HEAD = (
    "| model | dataset | classes | images | mean IoU | pixel acc. | params | size | licence |",
    "| --- | --- | --: | --: | --: | --: | --: | --: | --- |",
)


def zoo() -> str:
    """A row for each published model, ordered by dataset and then by network."""
    return "\n".join([*HEAD, *map(row, published())]) + "\n"


def network(folder: Path) -> str:
    return folder.name.split("-", 1)[0]


def row(folder: Path) -> str:
    """The row of one model in the README's table."""
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    card = ModelCard.load(folder / "README.md").data
    weights = folder / "model.safetensors"
    results = card.eval_results or []
    dataset = results[0].dataset_name if results else folder.name.split("-", 1)[1]
    licence = card.get("license_name") or card.license
    images = evaluation.get("images", evaluation.get("pictures"))
    cells = (
        f"[`{folder.name}`](weights_card/{folder.name}/README.md)",
        dataset,
        str(len(config["class_names"])),
        f"{images} {evaluation['split']}",
        f"{100 * evaluation['mean_iou']:.2f}",
        f"{100 * evaluation['pixel_accuracy']:.2f}",
        f"{parameters(weights) / 1e6:.1f} M",
        f"{weights.stat().st_size / 1e6:.0f} MB",
        str(licence),
    )
    return f"| {' | '.join(cells)} |"


def results() -> str:
    """Per dataset: metrics of its networks next to published results, and IoU per class."""
    datasets: dict[str, list[Path]] = {}
    for folder in published():
        datasets.setdefault(folder.name.split("-", 1)[1], []).append(folder)
    return "\n".join(map(dataset_results, datasets.values()))


def published() -> list[Path]:
    """The folders of published weights, ordered by dataset and then by network."""
    names = architectures()
    folders = [path.parent for path in ROOT.glob("weights_card/*/evaluation.json")]
    return sorted(folders, key=lambda f: (f.name.split("-", 1)[1], names.index(network(f))))


def dataset_results(folders: list[Path]) -> str:
    """The section of one dataset."""
    info = read_card_info(folders[0]).complete()
    evaluations = [read_evaluation(folder) for folder in folders]
    first = evaluations[0]
    title = info.dataset_name or folders[0].name.split("-", 1)[1]
    keys = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy", "boundary_f1")
    rows = [["percent", *(SUMMARY_NAMES[key] for key in keys)], ["---", *["--:"] * len(keys)]]
    for folder, evaluation in zip(folders, evaluations, strict=True):
        cells = [percent(evaluation[key]) for key in keys]
        if evaluation["boundary_f1"] is None and any(
            map(not_judged, evaluation["classes"].values())
        ):
            cells[-1] = NOT_JUDGED
        rows.append([f"**`{folder.name}`**", *cells])
        others = info.known.published.get(network(folder), []) if info.known else []
        for who, iou, pixels, accuracy, boundary in others:
            rows.append([who, iou, "-", pixels, accuracy, boundary])
    classes = [
        ["IoU per class", *(f"`{f.name}`" for f in folders)],
        ["---", *["--:"] * len(folders)],
    ]
    for name in first["classes"]:
        cells = [percent(evaluation["classes"][name]["iou"]) for evaluation in evaluations]
        classes.append([name, *cells])
    return (
        f"\n### {title[0].upper()}{title[1:]}\n\nOn the {first['pictures']} images of "
        f"`{first['split']}`.\n\n{table(rows)}\n{table(classes)}"
    )


def carry_over() -> str:
    """Metrics on out-of-domain data, by network and source."""
    sections: dict[str, list[list[str]]] = {}
    for folder in published():
        for name, section in read_evaluation(folder).get(OUT_OF_DOMAIN, {}).items():
            sources = section.get("sources") or {section["data"]: section}
            classes = [
                c
                for c in section["classes"]
                if any(c not in part["absent_classes"] for part in sources.values())
            ]
            head = ["percent", "source", "images", "mean IoU", "mean Dice", "pixel acc.", *classes]
            rows = sections.setdefault(name, [head, ["---", "---", *["--:"] * (len(head) - 2)]])
            for source, part in sources.items():
                present = part["present_classes"]
                values = [present["mean_iou"], present["mean_dice"], part["pixel_accuracy"]]
                values += [
                    None if c in part["absent_classes"] else part["classes"][c]["iou"]
                    for c in classes
                ]
                rows.append(
                    [f"`{folder.name}`", source, str(part["pictures"]), *map(percent, values)]
                )
    return "\n".join(f"\n### {name}\n\n{table(rows)}" for name, rows in sections.items())


def not_judged(row: dict[str, Any]) -> bool:
    return (row.get("void_outline") or 0) >= MAX_VOID_OUTLINE


def table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def parameters(weights: Path) -> int:
    """Number of trainable parameters in the file, i.e. without batch norm statistics."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    with safe_open(weights, "pt") as file:
        names = [name for name in file.keys() if not name.endswith(statistics)]  # noqa: SIM118
        return sum(prod(file.get_slice(name).get_shape()) for name in names)


def options() -> str:
    """The options of `segmodels train`, one table per group."""
    groups: dict[str, list[str]] = {}
    for option in fields(TrainingConfig):
        if option.name == "network":  # an argument of its own
            continue
        about = option.metadata
        default = "required" if option.default is MISSING else about["unset"] or option.default
        row = f"| `--{option.name.replace('_', '-')}` | {shown(default)} | {about['help']} |"
        groups.setdefault(about["group"], []).append(row)
    return "".join(
        f"\n### {group.capitalize()}\n\n| option | default | meaning |\n| --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
        for group, rows in groups.items()
    )


def shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return " ".join(f"{value:g}" for value in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def presets() -> str:
    """The presets with the options that they set."""
    lines = ["| preset | network | description | options |", "| --- | --- | --- | --- |"]
    for name, preset in PRESETS.items():
        values = ", ".join(f"{key} {shown(value)}" for key, value in preset.options.items())
        lines.append(f"| `{name}` | {preset.network or 'any'} | {preset.about} | {values} |")
    return "\n".join(lines) + "\n"


TABLES = {
    ROOT / "README.md": {"zoo": zoo},
    ROOT / "docs" / "results.md": {"results": results, "carry-over": carry_over},
    ROOT / "docs" / "training.md": {"options": options, "presets": presets},
}


def updated(file: Path) -> str:
    """The text of the file with up-to-date tables."""
    text = file.read_text(encoding="utf-8")
    for name, table in TABLES[file].items():
        start, end = f"<!-- {name}: python docs/tables.py rewrites this -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = before + start + table() + rest[rest.index(end) :]
    return text


def main() -> None:
    for file in TABLES:
        file.write_text(updated(file), encoding="utf-8")


if __name__ == "__main__":
    main()
