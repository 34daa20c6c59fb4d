"""Facts for the table of networks: the paper, its key idea, the measured accuracy and links."""

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
    """The paper of an architecture: its year, its key idea in a few words, and its address."""

    year: int
    idea: str
    address: str


PAPERS = {
    "fcn": Paper(
        2015,
        "a fully convolutional classifier; coarse scores are summed with those of finer layers",
        "https://arxiv.org/abs/1411.4038",
    ),
    "unet": Paper(
        2015,
        "each encoder level's feature maps are concatenated with the decoder's",
        "https://arxiv.org/abs/1505.04597",
    ),
    "segnet": Paper(
        2017,
        "the decoder receives only the pooling indices",
        "https://arxiv.org/abs/1511.00561",
    ),
}


@dataclass(frozen=True)
class Measured:
    """A metric from a model card.

    Attributes:
        mean_iou: The mean IoU.
        dataset: Name and split of the dataset, e.g. "CamVid test".
    """

    mean_iou: float
    dataset: str


@lru_cache(maxsize=64)
def measured(source: str) -> Measured | None:
    """Return the mean IoU stated in a model card, or None if there is no card or no such entry.

    Args:
        source: Folder, Hub id or short name of the model.
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
    """Return the address of the model card: on the Hub, or in the code repository for the networks
    included there. None for other folders."""
    source = resolve_source(network.source)
    folder = Path(source)
    if not folder.is_dir():
        return f"{HUB}/{source}"
    own = Path(__file__).resolve().parents[2] / MODELS_FOLDER
    if folder.resolve().parent != own:
        return None
    return f"{repository()}/blob/main/{MODELS_FOLDER}/{folder.name}/{CARD_NAME}"


def code_address(architecture: str) -> str:
    """Return the address of the architecture's source code."""
    return f"{repository()}/blob/main/segmodels/models/{architecture}.py"


@lru_cache(maxsize=1)
def repository() -> str:
    """Return the address of the code repository, from the package metadata."""
    urls = dict(
        entry.split(", ", 1) for entry in metadata("segmodels").get_all("Project-URL") or []
    )
    return urls["Repository"]
