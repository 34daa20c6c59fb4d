"""Visitors' own models: from the Hub only, validated, and limited in size and number."""

import re
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.filenames import CONFIG_NAME, WEIGHTS_NAME
from segmodels.inference.comparison import ServedModel
from segmodels.inference.segmenter import Segmenter
from segmodels.models.base import load_model

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
MAX_BYTES = 600_000_000  # of model.safetensors; fits an FCN-8s with 4096 channels in float32
MAX_CONFIG_BYTES = 1_000_000
SCENE = "user"


class UserModels:
    """Visitors' models, of which the most recently used are kept in memory.

    Local folders and the machine's Hub token are never used, and downloads are deleted as soon as
    they are loaded. Thread-safe.

    Args:
        device: Device to run the models on, as in `Segmenter`.
        capacity: Number of models kept in memory.
    """

    def __init__(self, device: str = "auto", *, capacity: int = 2) -> None:
        self.device = device
        self.capacity = capacity
        self._networks: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, hub_id: str) -> ServedModel:
        """Return a model, loading it if it is not in memory.

        Args:
            hub_id: Id of the Hub repository, "org/name".

        Raises:
            CheckpointError: If the id, the repository, its size or its files are not accepted.
        """
        hub_id = hub_id.strip()
        if not HUB_ID.fullmatch(hub_id):
            raise CheckpointError(
                f"{hub_id!r} is not a Hub ID: expected organisation/name, as in the address of the "
                "model's page"
            )
        with self._lock:
            if hub_id not in self._networks:
                self._networks[hub_id] = self._load(hub_id)
            self._networks.move_to_end(hub_id)
            while len(self._networks) > self.capacity:
                self._networks.popitem(last=False)
            return self._networks[hub_id]

    def _load(self, hub_id: str) -> ServedModel:
        if Path(hub_id).exists():  # load_model would prefer it to the Hub
            raise CheckpointError(f"{hub_id} is a folder on this server; only Hub IDs are accepted")
        revision = checked_revision(hub_id)
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = load_model(hub_id, revision=revision, cache_dir=folder, token=False)
            except CheckpointError as error:
                text = re.sub(rf"{re.escape(folder)}\S*/", f"{hub_id}/", str(error))
                raise CheckpointError(text) from error
        try:
            segmenter = Segmenter(model, self.device)
            return ServedModel(hub_id.partition("/")[2], SCENE, segmenter, hub_id, revision)
        except ValueError as error:
            raise CheckpointError(f"{hub_id}: {error}") from error


def checked_revision(hub_id: str) -> str:
    """Return the current commit of a repository after checking its files.

    Raises:
        CheckpointError: If the repository is not public or cannot be reached, or if one of the two
            required files is missing or too large.
    """
    try:
        info = HfApi(token=False).model_info(hub_id, files_metadata=True, timeout=10)
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"there is no public model {hub_id} on the Hub") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(f"the Hub returned an error for {hub_id}: {error}") from error
    except Exception as error:  # no connection; the type depends on the HTTP client in use
        raise CheckpointError(
            f"could not reach the Hub for {hub_id} ({type(error).__name__}); try again later"
        ) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    for name, limit in ((CONFIG_NAME, MAX_CONFIG_BYTES), (WEIGHTS_NAME, MAX_BYTES)):
        if name not in sizes:
            raise CheckpointError(
                f"{hub_id} has no {name}: expected an FCN, UNet or SegNet saved by segmodels, "
                f"with {CONFIG_NAME} and {WEIGHTS_NAME} (pickles are not read)"
            )
        if sizes[name] > limit:
            raise CheckpointError(
                f"{name} of {hub_id} is {sizes[name] / 1e6:.0f} MB; this page accepts at most "
                f"{limit / 1e6:.0f} MB: run it locally with `SEGMODELS_MODELS={hub_id} segmodels "
                "demo`"
            )
    return str(info.sha)
