"""Model cards, made from what was measured: `evaluation.json` and `training.json`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from segmodels.evaluation.dataset_info import KNOWN_DATA
from segmodels.evaluation.failures import weakest_classes
from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.filenames import EVALUATION_NAME, START_TRAINING, TRAINING_NAME
from segmodels.models.base import SegmentationModel, load_model
from segmodels.models.vgg16 import OXFORD_STD
from segmodels.utils.files import write_text
from segmodels.utils.formatting import percent

PICTURE_NAME = "examples.jpg"  # beside the card, see `showcase.write_showcase`
FIGURES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_f1": "boundary F1",
}
NOT_PUBLISHED = ("as published: none on this test set", "-", "-", "-", "-")


def write_card(folder: Path) -> Path:
    """Write README.md, whole or not at all, into a model folder that has an `evaluation.json`, and
    perhaps `training.json` and `examples.jpg`. CheckpointError if it has none, or one of its files
    cannot be read."""
    model = load_model(folder)
    evaluation = _read_json(folder / EVALUATION_NAME, "make it with `segmodels evaluate --card`")
    training = None
    if (folder / TRAINING_NAME).exists():
        training = _read_json(folder / TRAINING_NAME, "put back the one that the training wrote")
    path = folder / "README.md"
    picture = (folder / PICTURE_NAME).exists()
    name = folder.resolve().name
    write_text(path, card_text(model, name, evaluation, training, picture=picture))
    return path


def _read_json(path: Path, remedy: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {remedy}") from error


def card_text(
    model: SegmentationModel,
    name: str,
    evaluation: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    *,
    picture: bool = False,
) -> str:
    """The card in Markdown, its metadata in front.

    name: of the model, "unet-camvid" for example: what it was trained on comes last.
    evaluation: `Evaluation.to_json()`. training: the recipe as `training.json` has it.
    picture: whether `examples.jpg` is beside the card.
    """
    data = name.rsplit("-", 1)[-1]
    known = KNOWN_DATA.get(data)
    architecture = type(model).__name__
    heading = model.display_name
    parts = [
        f"---\n{_metadata(model, name, data, evaluation).to_yaml()}\n---\n",
        f"# {heading} on {known.title if known else data}\n",
        f"{heading} ({model.paper.citation}), {model.parameter_count / 1e6:.1f} M parameters, "
        f"for {model.num_classes} classes: {', '.join(map(_escaped, model.class_names))}. "
        "Part of segmodels: FCN, U-Net and SegNet, side by side.\n",
        "## Use\n",
        _usage(architecture, name),
        "## Figures\n",
        f"`segmodels evaluate` on the {evaluation['pictures']} pictures of the split "
        f"`{evaluation['split']}`: single scale, one confusion matrix over all pictures, void left "
        "out; boundary F1 with a tolerance of 0.75 % of the diagonal, void not judged.\n",
        _overall_table(architecture, heading, data, evaluation),
        _class_table(evaluation),
        "## Where it fails\n",
        _failures(evaluation, picture),
        "## Training\n",
        _training(training, name),
        "## Limits and terms\n",
        "The network knows the scenes of its training pictures only, and gives every pixel one of "
        "its classes, also where none fits. It is a subject of study, not a part of a vehicle.\n",
        _terms(model, training, data),
    ]
    return "\n".join(parts)


def _metadata(
    model: SegmentationModel, name: str, data: str, evaluation: Mapping[str, Any]
) -> ModelCardData:
    known = KNOWN_DATA.get(data)
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=data,
            dataset_name=known.title if known else data,
            dataset_split=evaluation["split"],
            metric_type=key,
            metric_name=text,
            metric_value=round(evaluation[key], 4),
        )
        for key, text in FIGURES.items()
        if evaluation[key] is not None
    ]
    return ModelCardData(
        license=known.license if known else None,
        license_name=known.license_name if known else None,
        library_name="segmodels",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", type(model).__name__.lower(), "pytorch_model_hub_mixin"],
        datasets=[data],
        metrics=["mean_iou", "accuracy"],
        model_name=name,
        eval_results=results,
    )


def _usage(architecture: str, name: str) -> str:
    return (
        "```python\n"
        f"from segmodels import Segmenter, {architecture}\n\n"
        f'segmenter = Segmenter({architecture}.from_pretrained("ORG/{name}"))\n'
        'result = segmenter("street.jpg")\n'
        'result.overlay().save("overlay.png")\n'
        'result.save("class_ids.png")\n'
        "```\n"
    )


def _overall_table(
    architecture: str, heading: str, data: str, evaluation: Mapping[str, Any]
) -> str:
    keys = ("mean_iou", "pixel_accuracy", "mean_accuracy", "boundary_f1")
    ours = (f"**{heading}, these weights**", *(percent(evaluation[key]) for key in keys))
    known = KNOWN_DATA.get(data)
    others = known.published.get(architecture, [NOT_PUBLISHED]) if known else []
    rows = [ours, *others]
    head = ("percent", *(FIGURES[key] for key in keys))
    return _table(head, rows)


def _class_table(evaluation: Mapping[str, Any]) -> str:
    rows = [
        (_escaped(name), *(percent(row[key]) for key in ("iou", "accuracy", "boundary_f1")))
        for name, row in evaluation["classes"].items()
    ]
    return _table(("class", "IoU", "accuracy", "boundary F1"), rows)


def _failures(evaluation: Mapping[str, Any], picture: bool) -> str:
    parts = []
    if "confusion_matrix" in evaluation:
        matrix = np.array(evaluation["confusion_matrix"])
        sentences = weakest_classes(matrix, list(evaluation["classes"]))
        listed = "".join(f"- {sentence}\n" for sentence in sentences)
        parts.append(f"The weakest classes, from the confusion matrix:\n\n{listed}")
    if picture:
        parts.append(
            "On pictures that are in no data set; in the last column it is the less sure, the "
            f"darker: look there first.\n\n![Pictures, classes, confidence]({PICTURE_NAME})\n"
        )
    return "\n".join(parts) or "Not recorded.\n"


def _training(training: Mapping[str, Any] | None, name: str) -> str:
    if training is None:
        return "How these weights were trained is not recorded.\n"
    stages = _stages(training)
    names = [*(f"{name}-stage-{number}" for number in range(1, len(stages))), name]
    lines = "\n".join(map(_command, stages, [None, *names], names))
    return (
        "Trained on the split `train` alone; choices were made on `val`, and `test` was measured "
        f"at the end. Repeat it with\n\n```bash\n{lines}\n```\n"
    )


def _stages(training: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The recorded trainings, each of which started from the one before."""
    return [*_stages(training.get(START_TRAINING)), training] if training else []


def _command(training: Mapping[str, Any], start: str | None, out: str) -> str:
    options = {
        key: value for key, value in training.items() if value is not None and key != START_TRAINING
    }
    options |= {"start": start} if start else {}
    command = [f"segmodels train {options.pop('network')}", f"--out {out}"]
    for key, value in options.items():
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        command.append(f"--{key.replace('_', '-')} {text}")
    return " \\\n    ".join(command)


def _terms(model: SegmentationModel, training: Mapping[str, Any] | None, data: str) -> str:
    """What is known of them: the data set's, and VGG16's where the encoder began with it."""
    known = KNOWN_DATA.get(data)
    text = known.terms if known else f"Data: {data}."
    stages = _stages(training)
    if any(stage.get("vgg16") for stage in stages):
        oxford = model.image_std == list(OXFORD_STD)
        text += (
            " The encoder started from Oxford's VGG16 (Simonyan and Zisserman, 2015; CC BY 4.0)."
            if oxford
            else " The encoder started from VGG16's ImageNet weights."
        )
    if stages and stages[0].get("start"):
        text += f" The training went on from the weights of `{stages[0]['start']}`."
    return text + "\n"


def _escaped(name: str) -> str:
    """A class's name as text that Markdown takes for nothing else."""
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", name)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
