"""Model cards, generated from the files of a model folder.

    evaluation.json     metrics, written by `segmodels evaluate --card`
    training.json       training options, written by `segmodels train`
    card.json           other information (dataset, license, terms), written by `segmodels card`;
                        optional

Missing information is omitted from the card, never guessed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from numpy.typing import NDArray

from segmodels.evaluation.dataset_info import DATASETS, DatasetInfo
from segmodels.evaluation.evaluator import NOT_JUDGED, SUMMARY_NAMES, Evaluation, ImageResult
from segmodels.evaluation.metrics import MAX_VOID_OUTLINE, per_class_accuracy, per_class_iou
from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.filenames import (
    CARD_INFO_NAME,
    CARD_NAME,
    EVALUATION_NAME,
    HELD_OUT,
    START_TRAINING,
    TRAINING_NAME,
    WEIGHTS_NAME,
)
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.vgg16 import OXFORD_STD
from segmodels.utils.files import write_text
from segmodels.utils.formatting import percent

EXAMPLES_NAME = "examples.jpg"  # beside the card, see `qualitative.write_examples`
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
OUT_OF_DOMAIN = "out_of_domain"  # entry of evaluation.json: metrics on other datasets, by name
WEIGHTS_DIGEST = "weights_sha256"  # entry of evaluation.json: the evaluated weights
# Found in generated cards: of segmodels, of its earlier versions, and of huggingface_hub's mixin.
GENERATED_MARKS = (
    "<!-- Written by segmodels;",
    "Part of segmodels: FCN, U-Net and SegNet, side by side.",
    "- Docs: [More Information Needed]",
)
# Entries of training.json that are not options of `segmodels train`.
NO_OPTIONS = ("network", "start", START_TRAINING, HELD_OUT, "carried_over")
OVERALL = ("mean_iou", "pixel_accuracy", "mean_accuracy", "boundary_f1")
CLASS_TITLES = {
    "iou": "IoU",
    "dice": "Dice (F1)",
    "precision": "precision",
    "accuracy": "accuracy (recall)",
    "boundary_f1": "boundary F1",
}
NOTABLE = 0.05  # confusions of at least this share of a class's pixels are mentioned
NO_SELECTION = "How settings were chosen is not recorded."


@dataclass(frozen=True)
class CardInfo:
    """The content of card.json: information that training and evaluation do not record.

    Attributes:
        dataset: A key of `dataset_info.DATASETS`; the other fields override its entries.
        dataset_name: Name of the training data.
        license: License of the weights as a Hub identifier: "cc-by-4.0", "other" ...
        license_name: Name of the license if `license` is "other".
        license_link: URL of the license terms.
        terms: Terms of the weights and the data, in Markdown.
        limits: Uses that the network is not intended for, in Markdown.
        selection: Which images were used to choose settings, and how often the reported split was
            evaluated, in Markdown.
        examples: Description of the images in examples.jpg, in Markdown.
    """

    dataset: str | None = None
    dataset_name: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    terms: str | None = None
    limits: str | None = None
    selection: str | None = None
    examples: str | None = None

    @property
    def known(self) -> DatasetInfo | None:
        """What is known about `dataset`."""
        return DATASETS[self.dataset] if self.dataset else None

    def complete(self) -> "CardInfo":
        """Fill in fields that are None with what is known about the dataset."""
        known = self.known
        if known is None:
            return self
        facts = {
            "dataset_name": known.title,
            "license": known.license,
            "license_name": known.license_name,
            "license_link": known.license_link,
            "terms": known.terms,
            "limits": known.limits,
        }
        return replace(self, **{k: v for k, v in facts.items() if getattr(self, k) is None})


# ---- files ----


def read_card_info(folder: Path) -> CardInfo:
    """Read card.json; empty if there is none. Raises CheckpointError if it is invalid."""
    path = folder / CARD_INFO_NAME
    if not path.exists():
        return CardInfo()
    entries = _read_json(path, "correct or delete it")
    names = [field.name for field in fields(CardInfo)]
    if not isinstance(entries, dict) or not set(entries) <= set(names):
        raise CheckpointError(f"{path} must be an object with the entries {', '.join(names)}")
    for name, value in entries.items():
        if not isinstance(value, str):
            raise CheckpointError(f"{path}: {name} must be a string, got {value!r}")
    if entries.get("dataset") not in (None, *DATASETS):
        raise CheckpointError(
            f"{path}: dataset must be one of {', '.join(DATASETS)}, got {entries['dataset']!r}; "
            "for other datasets, set dataset_name, license and terms"
        )
    return CardInfo(**entries)


def write_card_info(folder: Path, changes: Mapping[str, str]) -> None:
    """Update entries of card.json. Raises CheckpointError if it is invalid."""
    info = replace(read_card_info(folder), **changes)
    entries = {name: value for name, value in asdict(info).items() if value is not None}
    write_text(folder / CARD_INFO_NAME, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


def record_evaluation(
    folder: Path, report: Mapping[str, Any], *, out_of_domain: str | None = None
) -> None:
    """Write evaluation.json atomically.

    Existing out-of-domain metrics are kept if they were measured on the same weights.

    Args:
        folder: The model folder.
        report: `Evaluation.to_json()`, with "split" and "data".
        out_of_domain: Keep the main metrics and add these under this name instead.
    """
    path = folder / EVALUATION_NAME
    try:
        before = _read_json(path, "")
    except CheckpointError:
        if out_of_domain:
            raise
        before = {}  # is replaced
    if not isinstance(before, dict):
        before = {}
    digest = weights_digest(folder)
    entry = {**report, WEIGHTS_DIGEST: digest}
    sections = {
        name: section
        for name, section in before.get(OUT_OF_DOMAIN, {}).items()
        if section.get(WEIGHTS_DIGEST) == digest
    }
    if out_of_domain:
        sections[out_of_domain] = entry
        entry = dict(before)
    entry = {key: value for key, value in entry.items() if key != OUT_OF_DOMAIN}
    if sections:
        entry[OUT_OF_DOMAIN] = sections
    write_text(path, json.dumps(entry, indent=2) + "\n")


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights file, hexadecimal."""
    with open(folder / WEIGHTS_NAME, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_card_can_be_written(
    folder: Path, *, overwrite: bool = False, needs_evaluation: bool = False
) -> None:
    """Check that `write_card` will succeed, before starting a long computation.

    Args:
        folder: The model folder.
        overwrite: Whether a README.md that segmodels did not write may be replaced.
        needs_evaluation: Whether evaluation.json must already exist.

    Raises:
        CheckpointError: If there is a hand-written README.md, or a file cannot be read.
    """
    card = folder / CARD_NAME
    if card.exists() and not overwrite and not is_generated(card):
        raise CheckpointError(
            f"{card} was not written by segmodels: add --overwrite to replace it, or move it"
        )
    read_card_info(folder)
    _read_training(folder)
    if needs_evaluation:
        read_evaluation(folder)


def is_generated(card: Path) -> bool:
    """Whether a README.md was generated by segmodels or huggingface_hub."""
    text = card.read_text(encoding="utf-8", errors="replace")
    return not text.strip() or any(mark in text for mark in GENERATED_MARKS)


def write_card(folder: Path, *, overwrite: bool = False) -> Path:
    """Write README.md of a model folder atomically.

    Args:
        folder: A model folder with evaluation.json and, optionally, training.json, card.json and
            examples.jpg.
        overwrite: Replace a README.md that segmodels did not write.

    Returns:
        The path of the card.

    Raises:
        CheckpointError: If evaluation.json is missing, a file cannot be read, or there is a
            hand-written README.md.
    """
    check_card_can_be_written(folder, overwrite=overwrite, needs_evaluation=True)
    text = card_text(
        load_model(folder),
        folder.resolve().name,
        read_evaluation(folder),
        _read_training(folder),
        read_card_info(folder),
        has_examples=(folder / EXAMPLES_NAME).exists(),
    )
    path = folder / CARD_NAME
    write_text(path, text)
    return path


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read evaluation.json.

    Files of earlier versions are completed from the confusion matrix: Dice, precision and absent
    classes. Raises CheckpointError if it is missing, invalid, or for other weights.
    """
    path, remedy = folder / EVALUATION_NAME, "create it with `segmodels evaluate --card`"
    evaluation = _read_json(path, remedy)
    needed = ("split", "pictures", "classes", *OVERALL)
    if not isinstance(evaluation, dict) or not set(needed) <= set(evaluation):
        raise CheckpointError(f"{path} lacks some of the entries {', '.join(needed)}: {remedy}")
    if evaluation.get(WEIGHTS_DIGEST, digest := weights_digest(folder)) != digest:
        raise CheckpointError(f"{path} was measured on other weights: {remedy}")
    return _completed(evaluation)


def _read_training(folder: Path) -> Any:
    path = folder / TRAINING_NAME
    return _read_json(path, "restore the one that the training wrote") if path.exists() else None


def _read_json(path: Path, remedy: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {remedy}") from error


# ---- the card ----


def card_text(
    model: SegmentationModel,
    name: str,
    evaluation: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    info: CardInfo | None = None,
    *,
    has_examples: bool = False,
) -> str:
    """Generate the card.

    Args:
        model: The network.
        name: The repository's name.
        evaluation: Content of evaluation.json, also of earlier versions.
        training: Content of training.json.
        info: Content of card.json.
        has_examples: Whether the folder contains examples.jpg.

    Returns:
        Markdown with the metadata of the Hub as front matter.
    """
    info = (info or CardInfo()).complete()
    evaluation = _completed(evaluation)
    data_name = info.dataset_name
    card = ModelCard.from_template(
        _metadata(model, name, info, evaluation),
        template_path=str(TEMPLATE),
        name=name,
        heading=f"{model.display_name} on {data_name}" if data_name else model.display_name,
        display_name=model.display_name,
        class_name=type(model).__name__,
        citation=model.paper.citation,
        parameters=f"{model.parameter_count / 1e6:.1f}",
        class_names=[_escaped(name) for name in model.class_names],
        absent_classes=[_escaped(name) for name in evaluation.get("absent_classes", [])],
        evaluation=evaluation,
        overall_table=_overall_table(model, info, evaluation),
        class_table=_class_table(evaluation),
        source_table=_source_table(evaluation),
        out_of_domain=_out_of_domain(evaluation),
        weakest=_weakest(evaluation),
        has_examples=has_examples,
        commands=_commands(training, name),
        info={
            "selection": info.selection or NO_SELECTION,
            "examples": f"{info.examples} " if info.examples else "",
        },
        limits=f" {info.limits}" if info.limits else "",
        terms=_terms(model, training, info),
        percent=percent,
        escape=_escaped,
    )
    return card.content.rstrip("\n") + "\n"


def _completed(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Add metrics that evaluation.json of an earlier version lacks, from its confusion matrix."""
    if "confusion_matrix" not in evaluation:
        return dict(evaluation)
    matrix = np.array(evaluation["confusion_matrix"], np.int64)
    names = list(evaluation["classes"])
    computed = Evaluation(names, [ImageResult(0, "", matrix)]).to_json()
    classes = {name: {**computed["classes"][name], **evaluation["classes"][name]} for name in names}
    return {**computed, **evaluation, "classes": classes}


def _metadata(
    model: SegmentationModel, name: str, info: CardInfo, evaluation: Mapping[str, Any]
) -> ModelCardData:
    data_name = info.dataset_name or evaluation.get("data")
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=info.dataset or data_name,
            dataset_name=data_name,
            dataset_split=evaluation["split"],
            metric_type=key,
            metric_name=title,
            metric_value=round(evaluation[key], 4),
        )
        for key, title in SUMMARY_NAMES.items()
        if data_name and evaluation.get(key) is not None
    ]
    return ModelCardData(
        license=info.license,
        license_name=info.license_name,
        license_link=info.license_link,
        library_name="segmodels",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", model.architecture, "pytorch_model_hub_mixin"],
        datasets=[info.dataset] if info.dataset else None,
        metrics=["mean_iou", "accuracy"],
        model_name=name if results else None,  # the Hub accepts it only with results
        eval_results=results or None,
    )


def _overall_table(model: SegmentationModel, info: CardInfo, evaluation: Mapping[str, Any]) -> str:
    cells = [percent(evaluation[key]) for key in OVERALL]
    if evaluation[OVERALL[-1]] is None and any(map(_not_judged, evaluation["classes"].values())):
        cells[-1] = NOT_JUDGED
    rows = [(f"**{model.display_name}, these weights**", *cells)]
    if info.known:
        rows += info.known.published.get(model.architecture, [])
    return _table(("percent", *(SUMMARY_NAMES[key] for key in OVERALL)), rows)


def _class_table(evaluation: Mapping[str, Any]) -> str:
    rows = []
    for name, row in evaluation["classes"].items():
        cells = [percent(row.get(key)) for key in CLASS_TITLES]
        if _not_judged(row):
            cells[-1] = NOT_JUDGED
        rows.append((_escaped(name), *cells))
    return _table(("class", *CLASS_TITLES.values()), rows)


def _not_judged(row: Mapping[str, Any]) -> bool:
    return (row.get("void_outline") or 0) >= MAX_VOID_OUTLINE


def _source_table(evaluation: Mapping[str, Any]) -> str:
    """Means and IoU of each source over its labelled classes; "" without sources."""
    sources = evaluation.get("sources", {})
    classes = [
        name
        for name in evaluation["classes"]
        if any(name not in source["absent_classes"] for source in sources.values())
    ]
    rows = []
    for source, part in sources.items():
        present = part["present_classes"]
        iou = [
            None if name in part["absent_classes"] else part["classes"][name]["iou"]
            for name in classes
        ]
        cells = [present["mean_iou"], present["mean_dice"], part["pixel_accuracy"], *iou]
        title = _escaped(source) or "(no prefix)"
        rows.append((title, str(part["pictures"]), *map(percent, cells)))
    head = ("source", "images", "mean IoU", "mean Dice", "pixel accuracy", *map(_escaped, classes))
    return _table(head, rows) if rows else ""


def _out_of_domain(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    sections = []
    for name, section in evaluation.get(OUT_OF_DOMAIN, {}).items():
        parts = dict(section)
        if "sources" not in parts:  # a single row for all images
            parts["sources"] = {section.get("data", ""): section}
        sections.append(
            {
                "name": name,
                "pictures": section["pictures"],
                "split": section["split"],
                "table": _source_table(parts),
            }
        )
    return sections


# ---- where it fails ----


def _weakest(evaluation: Mapping[str, Any]) -> list[str]:
    if "confusion_matrix" not in evaluation:
        return []
    names = [_escaped(name) for name in evaluation["classes"]]
    return weakest_classes(np.array(evaluation["confusion_matrix"]), names)


def weakest_classes(
    matrix: NDArray[np.int64], class_names: Sequence[str], count: int = 3
) -> list[str]:
    """Describe the classes with the lowest IoU.

    Args:
        matrix: [target, prediction] pixel counts.
        class_names: In the order of the ids.
        count: Number of classes.

    Returns:
        One or two sentences per class, lowest IoU first: its accuracy, and the classes that it is
        most often confused with.
    """
    iou, found = per_class_iou(matrix), per_class_accuracy(matrix)
    order = [int(i) for i in np.argsort(iou, kind="stable") if matrix[i].any()]
    return [_sentences(matrix, class_id, class_names, iou, found) for class_id in order[:count]]


def _sentences(
    matrix: NDArray[np.int64],
    class_id: int,
    class_names: Sequence[str],
    iou: NDArray[np.float64],
    found: NDArray[np.float64],
) -> str:
    name = class_names[class_id]
    missed = _others(matrix[class_id], class_id, "as", class_names)
    wrong = _others(matrix[:, class_id], class_id, "are", class_names)
    text = f"**{name}** (IoU {percent(iou[class_id])} %): "
    text += f"{100 * found[class_id]:.0f} % of its pixels are classified correctly"
    text += f", {missed}." if missed else "."
    return text + (f" Of the pixels predicted as {name}, {wrong}." if wrong else "")


def _others(counts: NDArray[np.int64], class_id: int, word: str, class_names: Sequence[str]) -> str:
    """The two largest of the other classes, if notable: "27 % as building and 10 % as tree"."""
    shares = counts / max(1, counts.sum())
    shares[class_id] = 0
    largest = [i for i in np.argsort(-shares, kind="stable")[:2] if shares[i] >= NOTABLE]
    return " and ".join(f"{100 * shares[i]:.0f} % {word} {class_names[i]}" for i in largest)


# ---- training and terms ----


def _commands(training: Mapping[str, Any] | None, name: str) -> list[str]:
    """The commands that reproduce the training, one per stage."""
    stages = _stages(training)
    names = [*(f"{name}-stage-{number}" for number in range(1, len(stages))), name]
    return list(map(_command, stages, [None, *names], names))


def _stages(training: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The recorded training stages, each started from the previous one."""
    return [*_stages(training.get(START_TRAINING)), training] if training else []


def _command(training: Mapping[str, Any], start: str | None, out: str) -> str:
    command = [f"segmodels train {training['network']}", f"--out {out}"]
    options = {key: value for key, value in training.items() if key not in NO_OPTIONS}
    options["start"] = start or training.get("start")
    for key, value in options.items():
        option = key.replace("_", "-")
        if value is True or value is False:
            command.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            command.append(f"--{option} {_argument(value)}")
    return " \\\n    ".join(command)


def _argument(value: Any) -> str:
    """As a command-line argument; absolute paths are reduced to their last component."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _terms(model: SegmentationModel, training: Mapping[str, Any] | None, info: CardInfo) -> str:
    """The terms of the dataset and, if the encoder was initialised from it, of VGG16."""
    parts = []
    if info.terms:
        parts.append(info.terms)
    elif info.license:
        name = info.license_name or info.license
        link = f"[{name}]({info.license_link})" if info.license_link else name
        parts.append(f"License of the weights: {link}.")
    else:
        parts.append("No license is declared for these weights.")
    stages = _stages(training)
    if any(stage.get("vgg16") for stage in stages):
        oxford = model.image_std == list(OXFORD_STD)
        parts.append(
            "The encoder was initialised from Oxford's VGG16 (Simonyan and Zisserman, 2015; "
            "CC BY 4.0)."
            if oxford
            else "The encoder was initialised from VGG16's ImageNet weights."
        )
    if stages and stages[0].get("start"):
        start = _argument(stages[0]["start"])
        parts.append(f"Training started from the weights of `{start}`.")
    return " ".join(parts)


def _escaped(name: str) -> str:
    """Escape a name for use as plain text in Markdown."""
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", name)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
