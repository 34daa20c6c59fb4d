"""Uploading a model folder to a repository of the Hugging Face Hub, in one commit."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from segmodels.hub.filenames import CARD_NAME, FILES

REQUEST_TIMEOUT = 10.0  # seconds


class PushError(RuntimeError):
    """The upload failed, and nothing was uploaded. The message says why and what to do."""


@dataclass(frozen=True)
class Pushed:
    """The result of an upload.

    Attributes:
        repo_id: "org/name".
        url: URL of the commit or, with create_pr, of the pull request.
        changed: False if the repository already had all files, so no commit was made.
    """

    repo_id: str
    url: str
    changed: bool


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    commit_message: str = "Push model with segmodels",
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
    replace_card: bool = True,
) -> Pushed:
    """Upload the model files of a folder, and no other files, in one commit.

    Args:
        folder: A model folder; `filenames.FILES` lists the files that are uploaded.
        repo_id: "org/name", or "name" for the user's namespace; created if necessary.
        token: Access token; None: the one of `hf auth login`.
        private: Whether a new repository is private; None: the default of the organisation.
        branch: Branch to commit to, created from main if necessary; None: main.
        create_pr: Propose the commit as a pull request.
        commit_message: Title of the commit.
        allow_patterns: Upload only files that match.
        ignore_patterns: Do not upload files that match.
        delete_patterns: Delete files of the repository that match.
        replace_card: False keeps an existing README.md of the repository.

    Raises:
        PushError: If the user is not logged in or has no write access, the name is invalid, or the
            Hub cannot be reached or rejects the card.
    """
    api = HfApi(token=token, library_name="segmodels")
    with _hub_errors(repo_id):
        if create_pr and branch not in (None, constants.DEFAULT_REVISION):
            raise PushError("pull requests are opened against main: do not specify a branch")
        validate_repo_id(repo_id)
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
        before = _prepare(api, repo_id, private, branch)
        remote_files = [file.rfilename for file in before.siblings or []]
        paths = _paths(folder, allow_patterns, ignore_patterns)
        if not replace_card and CARD_NAME in remote_files:
            paths.pop(CARD_NAME, None)
        added = [_addition(name, path, repo_id) for name, path in paths.items()]
        removed = filter_repo_objects(remote_files, allow_patterns=delete_patterns or [])
        commit = api.create_commit(
            repo_id,
            [*added, *(CommitOperationDelete(name) for name in removed if name not in paths)],
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    return Pushed(repo_id, commit.pr_url or commit.commit_url, commit.oid != before.sha)


def _addition(name: str, path: Path, repo_id: str) -> CommitOperationAdd:
    if name != CARD_NAME:
        return CommitOperationAdd(name, path)
    # The example in the card loads "ORG/unet-camvid"; insert the actual repository.
    text = re.sub(r'"ORG/[\w.-]+"', f'"{repo_id}"', path.read_text(encoding="utf-8"))
    return CommitOperationAdd(name, text.encode())


def copy_files(source: Path, destination: Path, patterns: Sequence[str]) -> None:
    """Copy matching files of a folder to the same relative paths in another."""
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_file():
                target = destination / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _paths(
    folder: Path, allow_patterns: list[str] | str | None, ignore: list[str] | str | None
) -> dict[str, Path]:
    found = {
        path.relative_to(folder).as_posix(): path
        for pattern in FILES
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    names = filter_repo_objects(found, allow_patterns=allow_patterns, ignore_patterns=ignore)
    return {name: found[name] for name in names}


def _prepare(api: HfApi, repo_id: str, private: bool | None, branch: str | None) -> ModelInfo:
    """Create the repository and the branch if necessary; return the state of the branch."""
    try:
        info = api.model_info(repo_id, timeout=REQUEST_TIMEOUT)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private, exist_ok=True)
        info = api.model_info(repo_id, timeout=REQUEST_TIMEOUT)
    if private and not info.private:
        raise PushError(
            f"{repo_id} exists and is public: make it private in its settings first, or omit "
            "--private"
        )
    if branch is None:
        return info
    try:
        return api.model_info(repo_id, revision=branch, timeout=REQUEST_TIMEOUT)
    except RevisionNotFoundError:
        api.create_branch(repo_id, branch=branch, exist_ok=True)
        return info


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Convert Hub errors to PushError."""
    try:
        yield
    except HFValidationError as error:
        raise PushError(
            f"{repo_id!r} is not a valid repository name: expected ORG/NAME, at most 96 letters, "
            "digits, '-', '_' and '.'"
        ) from error
    except OfflineModeIsEnabled as error:
        raise PushError("cannot upload while HF_HUB_OFFLINE is set: unset it") from error
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise PushError(_reason(error, repo_id)) from error
    except HTTPError as error:
        raise PushError(
            f"the Hub ({constants.ENDPOINT}) cannot be reached ({error}): is this machine online?"
        ) from error
    except ValueError as error:  # from the Hub's validation of the card
        raise PushError(f"{repo_id} was not pushed: {error}") from error


def _reason(error: OSError, repo_id: str) -> str:
    status, details = 401, ""  # no token
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        details = f" (the Hub responded: {error.server_message})" if error.server_message else ""
    if status == 401:
        return (
            "you are not logged in: run `hf auth login` with a token that has write access, or "
            f"set HF_TOKEN{details}"
        )
    if status in (403, 404):
        return (
            f"you have no write access to {repo_id}{details}: use a token with write access, ask "
            "the organisation for write access, or push to a repository of your own"
        )
    if status >= 500:
        return f"the Hub ({constants.ENDPOINT}) returned status {status}: try again later"
    return f"{repo_id} was not pushed: {error}"
