"""The tables of README and documentation that follow from weights and code.

`python docs/tables.py` rewrites them between their comments; tests/test_documentation.py checks
that this was done.
"""

import json
from dataclasses import MISSING, fields
from math import prod
from pathlib import Path

from huggingface_hub import ModelCard
from safetensors import safe_open

from segmodels.models.registry import architectures
from segmodels.training.config import TrainingConfig
from segmodels.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
HEAD = (
    "| model | dataset, classes, evaluated on | mean IoU | pixel acc. | params | size | licence |",
    "| --- | --- | --: | --: | --: | --: | --- |",
)


def zoo() -> str:
    """The rows of all published models, by dataset and then by network."""
    names = architectures()
    folders = [path.parent for path in ROOT.glob("weights_card/*/evaluation.json")]
    folders.sort(key=lambda folder: (folder.name.split("-", 1)[1], names.index(network(folder))))
    return "\n".join([*HEAD, *map(row, folders)]) + "\n"


def network(folder: Path) -> str:
    return folder.name.split("-", 1)[0]


def row(folder: Path) -> str:
    """One model's row, as in the README."""
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
        f"{dataset}, {len(config['class_names'])}, {images} of {evaluation['split']}",
        f"{100 * evaluation['mean_iou']:.2f}",
        f"{100 * evaluation['pixel_accuracy']:.2f}",
        f"{parameters(weights) / 1e6:.1f} M",
        f"{weights.stat().st_size / 1e6:.0f} MB",
        str(licence),
    )
    return f"| {' | '.join(cells)} |"


def parameters(weights: Path) -> int:
    """Numbers in the file, without the statistics of batch norms, which no gradient reaches."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    with safe_open(weights, "pt") as file:
        names = [name for name in file.keys() if not name.endswith(statistics)]  # noqa: SIM118
        return sum(prod(file.get_slice(name).get_shape()) for name in names)


def options() -> str:
    """The options of `segmodels train`, a table per group."""
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
    """What each preset is, and the options that it sets."""
    lines = ["| preset | network | what it is | options |", "| --- | --- | --- | --- |"]
    for name, preset in PRESETS.items():
        values = ", ".join(f"{key} {shown(value)}" for key, value in preset.options.items())
        lines.append(f"| `{name}` | {preset.network or 'any'} | {preset.about} | {values} |")
    return "\n".join(lines) + "\n"


TABLES = {
    ROOT / "README.md": {"zoo": zoo},
    ROOT / "docs" / "training.md": {"options": options, "presets": presets},
}


def updated(file: Path) -> str:
    """The file's text with its tables as they should be."""
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
