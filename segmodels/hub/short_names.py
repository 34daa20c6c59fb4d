"""Short names of pretrained networks, such as "unet-camvid".

A short name refers to the folder `weights_card/unet-camvid`, in the working directory or in the
clone that the package is run from. If there is none, it refers to a repository of the Hub
organisation given by the environment variable SEGMODELS_HUB_ORG.
"""

import logging
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HTTPError

from segmodels.hub.filenames import CONFIG_NAME

ORG_VARIABLE = "SEGMODELS_HUB_ORG"
MODELS_FOLDER = "weights_card"

log = logging.getLogger("segmodels")


def list_models() -> list[str]:
    """List the short names that `load_model` finds.

    Returns:
        The sorted names of the model folders in `weights_card/` and, if SEGMODELS_HUB_ORG is set,
        of that organisation's segmodels models on the Hub. If the Hub cannot be reached, a warning
        is logged and only the folders are listed.

    Examples:
        >>> import segmodels
        >>> segmodels.list_models()  # doctest: +SKIP
        ['fcn-camvid', 'segnet-camvid', 'unet-camvid']
    """
    names = set(_model_folders())
    organisation = os.environ.get(ORG_VARIABLE)
    if organisation:
        try:
            api = HfApi()
            # Try once before listing, which would retry for 20 s.
            get_session().head(api.endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            models = api.list_models(author=organisation, filter="segmodels")
            names.update(model.id.rpartition("/")[2] for model in models)
        except (HTTPError, OSError) as error:
            log.warning("the Hub models of %s cannot be listed: %s", organisation, error)
    return sorted(names)


def resolve_source(source: str) -> str:
    """Resolve a short name.

    Args:
        source: A folder, a Hub id or a short name.

    Returns:
        The folder or Hub id of a short name; any other source unchanged.
    """
    if Path(source).expanduser().is_dir() or not _is_short(source):
        return source
    organisation = os.environ.get(ORG_VARIABLE)
    folder = _model_folders().get(source)
    if folder is not None:
        return str(folder)
    return f"{organisation}/{source}" if organisation else source


def missing_folder(source: str) -> str | None:
    """Describe a source that looks like a folder but does not exist.

    Returns:
        "there is no folder ...", with the closest existing name; None if the source can only be a
        Hub id: "org/name" where there is no folder "org".
    """
    path = Path(source).expanduser()
    if _is_short(source):
        known = [*_model_folders(), *_folders_in(Path())]
        close = get_close_matches(source, known, n=1)
    elif path.parent.is_dir():
        close = [
            str(Path(source).with_name(name))
            for name in get_close_matches(path.name, _folders_in(path.parent), n=1)
        ]
    elif source.count("/") == 1 and source[0] not in "./~\\":
        return None
    else:
        close = []
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no folder {source}{hint}"


def _is_short(source: str) -> bool:
    return bool(source) and not set(source) & {"/", "\\"} and source not in (".", "..")


def _model_folders() -> dict[str, Path]:
    """{name: path} of the folders with a config in `weights_card/`."""
    parents = [Path(__file__).parents[2] / MODELS_FOLDER, Path(MODELS_FOLDER)]
    configs = [path for parent in parents for path in parent.glob(f"*/{CONFIG_NAME}")]
    return {path.parent.name: path.parent for path in configs}


def _folders_in(folder: Path) -> Iterable[str]:
    return [path.name for path in folder.iterdir() if path.is_dir()]
