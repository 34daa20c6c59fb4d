"""The files of a checkpoint, from a folder or from the Hugging Face Hub through its cache.

All files of a Hub repository are from the same commit, even if there is a push in the meantime.
Cached files are not downloaded again, and downloads are verified against the hash given by the Hub.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypedDict, TypeVar

from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from segmodels.hub.checkpoint import CheckpointError
from segmodels.hub.filenames import CONFIG_NAME, WEIGHTS_NAME
from segmodels.hub.short_names import missing_folder, resolve_source
from segmodels.utils.files import write_text

RETRY_DELAYS = (1.0, 2.0)  # seconds before each retry if there is no cached copy
RETRY_WITHIN = 5.0  # seconds after the first attempt; later failures are not retried
COMMIT = re.compile("[0-9a-f]{40}")

log = logging.getLogger("segmodels")
T = TypeVar("T")


class HubUnavailableError(CheckpointError):
    """The Hub cannot be reached or denies access; a cached copy may be used instead.

    Attributes:
        temporary: Whether a retry may succeed.
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class Download(TypedDict, total=False):
    """Options of a download, as in `hf_hub_download`."""

    subfolder: str | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class Folder:
    """The files of a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, filename: str, max_bytes: int | None = None) -> Path:
        """Return the path of a file. Raises CheckpointError if it does not exist."""
        if not (self.folder / filename).is_file():
            raise CheckpointError(
                f"{self.folder} has no {filename}: expected a folder written by save_pretrained, "
                f"with {CONFIG_NAME} and {WEIGHTS_NAME} (pickles are not read)"
            )
        return self.folder / filename

    def remember_commit(self) -> None:
        """A folder has no commits."""


class HubRepository:
    """The files of one commit of a Hub repository, through the cache."""

    def __init__(
        self,
        name: str,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> None:
        self.name = name
        self.subfolder = PurePosixPath(subfolder or "")
        self.revision = revision or constants.DEFAULT_REVISION
        self.commit = self.revision if COMMIT.fullmatch(self.revision) else None
        self.token = token
        self.cache_dir = cache_dir
        self.force_download = force_download
        self.local_files_only = local_files_only
        self._snapshot: Path | None = None  # <cache>/models--org--name/snapshots/<commit>

    def fetch(self, filename: str, max_bytes: int | None = None) -> Path:
        """Return the path of a file in the cache, downloading it if necessary.

        Args:
            filename: Its name in the (sub)folder.
            max_bytes: Refuse to download a larger file.

        Raises:
            HubUnavailableError: If the Hub cannot be reached or denies access.
            CheckpointError: If the repository, revision or file does not exist, or if the download
                fails its checksum.
        """
        filename = str(self.subfolder / filename)
        metadata = None
        if self.commit is None and not self.local_files_only:
            metadata = self._metadata(filename)
            self.commit = metadata.commit_hash
        path = None if self.force_download else self._cached(filename)
        if path is None and self.local_files_only:
            raise HubUnavailableError(
                f"{filename} of {self.name} (revision {self.revision}) is not in the cache, and "
                "downloads are disabled (local_files_only=True or HF_HUB_OFFLINE): load it once "
                "with downloads enabled"
            )
        if path is None:
            metadata = metadata or self._metadata(filename)
            if max_bytes is not None and (metadata.size or 0) > max_bytes:
                raise CheckpointError(
                    f"{filename} of {self.name} has {metadata.size:,} bytes, more than the maximum "
                    f"of {max_bytes:,} for its network; it was not downloaded"
                )
            path = self._with_retries(lambda: self._download(filename), filename)
            _verify(path, metadata.etag, self.name)
        self._snapshot = path.parents[len(PurePosixPath(filename).parts) - 1]
        self.commit = self._snapshot.name
        return path

    def remember_commit(self) -> None:
        """Record the commit of the branch or tag in the cache, for offline use.

        Called after all files have been validated; until then, offline use still refers to the
        previous commit. (huggingface_hub records a commit before downloading its first file.)
        """
        if self._snapshot is None or self.local_files_only or self.revision == self.commit:
            return
        reference = self._snapshot.parents[1] / "refs" / self.revision
        with suppress(OSError):  # the cache may be read-only
            if not reference.is_file() or reference.read_text() != self.commit:
                reference.parent.mkdir(parents=True, exist_ok=True)
                write_text(reference, str(self.commit))

    def _cached(self, filename: str) -> Path | None:
        revision = self.commit or self.revision
        found = try_to_load_from_cache(self.name, filename, self.cache_dir, revision)
        return Path(found) if isinstance(found, str) else None

    def _metadata(self, filename: str) -> HfFileMetadata:
        """Ask the Hub for the commit, hash and size of a file."""

        def request() -> HfFileMetadata:
            url = hf_hub_url(self.name, filename, revision=self.commit or self.revision)
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(
                url, token=self.token, timeout=timeout, library_name="segmodels"
            )
            if not COMMIT.fullmatch(found.commit_hash or ""):
                raise FileMetadataError(f"the response of {url} has no commit hash")
            return found

        return self._with_retries(request, filename)

    def _download(self, filename: str) -> Path:
        return Path(
            hf_hub_download(
                self.name,
                filename,
                revision=self.commit,
                token=self.token,
                cache_dir=self.cache_dir,
                force_download=self.force_download,
                library_name="segmodels",
            )
        )

    def _with_retries(self, request: Callable[[], T], filename: str) -> T:
        """Call `request`, retrying for a few seconds if the Hub fails and there is no cached copy.
        Hub errors are converted to CheckpointError."""
        delays = () if self._cached(filename) and not self.force_download else RETRY_DELAYS
        start = time.monotonic()
        for delay in (*delays, None):
            try:
                return request()
            except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
                converted = _convert_error(error, self.name, filename, self.revision)
                temporary = isinstance(converted, HubUnavailableError) and converted.temporary
                if delay is None or not temporary or time.monotonic() - start > RETRY_WITHIN:
                    raise converted from error
                time.sleep(delay)
        raise AssertionError("the last delay is None")


def from_repository(
    source: str, download: Download, load: Callable[[Folder | HubRepository], T]
) -> T:
    """Load from the files of a folder or of a Hub repository.

    If the Hub is unavailable, cached files are used and a warning is logged.

    Args:
        source: A folder, a Hub id or a short name (see `short_names`).
        download: Options of the download.
        load: Function that loads from the files.

    Returns:
        What `load` returns.

    Raises:
        CheckpointError: If `source` is neither a folder nor a repository, or lacks a file.
    """
    _check_subfolder(download.get("subfolder"))
    source = resolve_source(source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return load(Folder(folder / (download.get("subfolder") or "")))
    missing = missing_folder(source)
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        missing = missing or f"there is no folder {source}"
        raise CheckpointError(
            f"{missing}, and {source!r} is not a Hub id like 'org/name'"
        ) from error
    if missing and "/" not in source:
        raise CheckpointError(
            f"{missing}, and no pretrained network has this short name; a Hub id is written "
            "'org/name'"
        )
    if download.get("force_download") and download.get("local_files_only"):
        raise ValueError("force_download and local_files_only are mutually exclusive")
    try:
        return _from_hub(source, download, load)
    except HubUnavailableError as error:
        if not missing or download.get("revision"):  # only a repository has revisions
            raise
        message = f"{missing}, and no Hub repository of this name could be loaded: {error}"
        raise HubUnavailableError(message) from error


def _from_hub(name: str, download: Download, load: Callable[[Folder | HubRepository], T]) -> T:
    """Load from the Hub or, if it is unavailable, from the cache."""
    cached: Download = {**download, "local_files_only": True}
    if constants.HF_HUB_OFFLINE:
        download = cached
    try:
        return load(HubRepository(name, **download))
    except HubUnavailableError as error:
        if download.get("force_download") or download.get("local_files_only"):
            raise
        try:
            result = load(HubRepository(name, **cached))
        except HubUnavailableError:
            raise error from error.__cause__
        log.warning("%s. Using the cached copy.", error)
        return result


def fetch(source: str, filename: str) -> Path:
    """Return the path of one file of a folder or, through the cache, of a Hub repository.

    Args:
        source: A folder, a Hub id or a short name.
        filename: Name of the file in it.

    Raises:
        CheckpointError: If the source or the file does not exist.
    """

    def load(files: Folder | HubRepository) -> Path:
        path = files.fetch(filename)
        files.remember_commit()
        return path

    return from_repository(source, {}, load)


def _check_subfolder(subfolder: str | None) -> None:
    path = PurePosixPath(subfolder or "")
    if path.is_absolute() or ".." in path.parts or "\\" in (subfolder or ""):
        raise ValueError(f"subfolder must be a path inside the repository, got {subfolder!r}")


def _convert_error(error: Exception, name: str, filename: str, revision: str) -> CheckpointError:
    """Convert a Hub error to a CheckpointError that says what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return HubUnavailableError(
            f"{name} is gated: request access on its page, log in with `hf auth login` or pass a "
            "token, and try again"
        )
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{name} on the Hub has no revision {revision!r}")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return CheckpointError(
            f"{name} on the Hub has no {filename} in revision {revision}: expected {CONFIG_NAME} "
            f"and {WEIGHTS_NAME} (pickles are not read)"
        )
    if isinstance(error, RepositoryNotFoundError | LocalTokenNotFoundError) or status in (401, 403):
        return HubUnavailableError(
            f"{name} does not exist on the Hub, or you have no access to it: check the name; if it "
            "is private, log in with `hf auth login` or pass a token with read access"
        )
    if isinstance(error, HTTPError) and (status is None or status in (408, 429) or status >= 500):
        reason = f"returned status {status}" if status else f"cannot be reached ({error})"
        return HubUnavailableError(
            f"the Hub ({constants.ENDPOINT}) {reason} for {filename} of {name}: is this machine "
            "online? Try again later",
            temporary=True,
        )
    return CheckpointError(f"{filename} of {name} could not be downloaded: {error}")


def _verify(path: Path, etag: str | None, name: str) -> None:
    """Compare a download with the hash in its ETag: SHA-256 for large files, git's SHA-1 for small
    ones. If they differ, delete the file and raise CheckpointError."""
    if etag is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return  # not a hash: some mirrors use other ETags
    with open(path, "rb") as file:
        if len(etag) == 64:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            content = file.read()
            found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if found != etag:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path.name} of {name} failed its checksum (got {found}, expected {etag}) "
            "and was removed from the cache: try again"
        )
