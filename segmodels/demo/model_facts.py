"""What the page's table says of each network: its paper, its idea, what was measured, and where to
read more."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import metadata
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.download import fetch
from segmodels.hub.filenames import CARD_NAME
from segmodels.hub.short_names import MODELS_FOLDER, resolve_source
from segmodels.inference.comparison import ServedModel

METRIC = "mean_iou"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Paper:
    """Of an architecture: the year of its paper, its idea in a few words, and its address."""

    year: int
    idea: str
    address: str


PAPERS = {
    "fcn": Paper(
        2015,
        "a classifier made convolutional; coarse scores summed with those of finer layers",
        "https://arxiv.org/abs/1411.4038",
    ),
    "unet": Paper(
        2015,
        "every level of the encoder is handed over to the decoder, whole",
        "https://arxiv.org/abs/1505.04597",
    ),
    "segnet": Paper(
        2017,
        "only the positions of the pooled maxima are handed over",
        "https://arxiv.org/abs/1511.00561",
    ),
}


@dataclass(frozen=True)
class Measured:
    """A metric from a model card. dataset: with its split, "CamVid test"."""

    mean_iou: float
    dataset: str


@lru_cache(maxsize=64)
def measured(source: str) -> Measured | None:
    """The mean IoU that a model's card states; None where there is no card or no such entry.

    Args:
        source: A folder, a Hub id or a short name.
    """
    try:
        card = ModelCard(fetch(source, CARD_NAME).read_text(encoding="utf-8"))
        results: list[EvalResult] | None = getattr(card.data, "eval_results", None)
    except (CheckpointError, OSError, ValueError):
        return None
    found = [r for r in results or [] if r.metric_type == METRIC]
    return _measured(found[0]) if found else None


def _measured(result: EvalResult) -> Measured | None:
    try:
        value = float(result.metric_value)
    except (TypeError, ValueError):
        return None
    return Measured(value, f"{result.dataset_name} {result.dataset_split or ''}".strip())


def card_address(network: ServedModel) -> str | None:
    """Where the model card can be read: on the Hub, or with the code for the networks that come
    with it."""
    source = resolve_source(network.source)
    folder = Path(source)
    if not folder.is_dir():
        return f"{HUB}/{source}"
    own = Path(__file__).resolve().parents[2] / MODELS_FOLDER
    if folder.resolve().parent != own:
        return None
    return f"{repository()}/blob/main/{MODELS_FOLDER}/{folder.name}/{CARD_NAME}"


def code_address(architecture: str) -> str:
    """Where the network's code can be read."""
    return f"{repository()}/blob/main/segmodels/models/{architecture}.py"


@lru_cache(maxsize=1)
def repository() -> str:
    """The address of the code's repository, from the package's metadata."""
    urls = dict(
        entry.split(", ", 1) for entry in metadata("segmodels").get_all("Project-URL") or []
    )
    return urls["Repository"]
