"""`python docs/zoo.py` rewrites the README's table of models, from the files in weights_card/."""

import json
from math import prod
from pathlib import Path

from huggingface_hub import ModelCard
from safetensors import safe_open

from segmodels.models.registry import architectures

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
START = "<!-- zoo: python docs/zoo.py rewrites this table -->\n"
END = "<!-- /zoo -->"
HEAD = (
    "| model | dataset, classes, evaluated on | mean IoU | pixel acc. | params | size | licence |",
    "| --- | --- | --: | --: | --: | --: | --- |",
)


def table() -> str:
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


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest[rest.index(END) :]
    README.write_text(before + START + table() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
