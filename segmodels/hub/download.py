"""Where the files of a checkpoint come from: a folder, or a repository of the Hugging Face Hub and
the cache of it.

All files of a Hub repository are those of one commit, whatever is pushed meanwhile; what the cache
holds is not downloaded again; and what is downloaded must have the hash that the Hub gives for it.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
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
from segmodels.utils.files import write_text

WAITS = (1.0, 2.0)  # seconds before the Hub is asked again, where nothing is cached,
PATIENCE = 5.0  # and seconds after which it is not
COMMIT = re.compile("[0-9a-f]{40}")

log = logging.getLogger("segmodels")
T = TypeVar("T")


class HubUnavailableError(CheckpointError):
    """The Hub cannot be asked, or does not let this user in: a cached copy will do.

    passing: it may be able the next moment.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Download(TypedDict, total=False):
    """Where and how to look on the Hub, as in `hf_hub_download`."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class Folder:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, filename: str, max_bytes: int | None = None) -> Path:
        """The path of one of its files. CheckpointError if it is not there."""
        if not (self.folder / filename).is_file():
            raise CheckpointError(
                f"{self.folder} has no {filename}: expected a folder written by save_pretrained, "
                f"with {CONFIG_NAME} and {WEIGHTS_NAME} (pickles are not read)"
            )
        return self.folder / filename

    def keep(self) -> None:
        """Nothing has to be done to find it again."""


class HubRepository:
    """The files of one commit of a Hub repository, through the cache."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> None:
        self.name = name
        self.revision = revision or constants.DEFAULT_REVISION
        self.commit = self.revision if COMMIT.fullmatch(self.revision) else None
        self.token = token
        self.cache_dir = cache_dir
        self.force_download = force_download
        self.local_files_only = local_files_only
        self._last: Path | None = None

    def fetch(self, filename: str, max_bytes: int | None = None) -> Path:
        """The path in the cache of one of its files, downloaded if need be.

        max_bytes: a larger file is not downloaded.
        Raises HubUnavailableError, if the Hub cannot be asked, and CheckpointError, if it has no
        such repository, revision or file, or sends another file than it announced.
        """
        metadata = None
        if self.commit is None and not self.local_files_only:
            metadata = self._ask(filename)
            self.commit = metadata.commit_hash
        path = None if self.force_download else self._cached(filename)
        if path is None and self.local_files_only:
            raise HubUnavailableError(
                f"{self.name} is not a folder, and its {filename} (revision {self.revision}) is "
                "not in the cache, which alone was to be searched: load it once without "
                "local_files_only and HF_HUB_OFFLINE"
            )
        if path is None:
            metadata = metadata or self._ask(filename)
            if max_bytes is not None and (metadata.size or 0) > max_bytes:
                raise CheckpointError(
                    f"{filename} of {self.name} has {metadata.size:,} bytes, more than the "
                    f"{max_bytes:,} that its network can need; it was not downloaded"
                )
            path = self._patiently(lambda: self._download(filename), filename)
            _verify(path, metadata.etag, self.name)
        self.commit, self._last = path.parent.name, path
        return path

    def keep(self) -> None:
        """Note in the cache that the branch or tag stands for this commit, so that it is found
        without the Hub. Done once the files have proved good: until then the former commit stays.
        """
        if self._last is None or self.local_files_only or self.revision == self.commit:
            return
        # <cache>/models--org--name/snapshots/<commit>/<file>, and refs/<branch> beside snapshots
        reference = self._last.parents[2] / "refs" / self.revision
        with suppress(OSError):  # a cache may be read-only
            if not reference.is_file() or reference.read_text() != self.commit:
                reference.parent.mkdir(parents=True, exist_ok=True)
                write_text(reference, str(self.commit))

    def _cached(self, filename: str) -> Path | None:
        revision = self.commit or self.revision
        found = try_to_load_from_cache(self.name, filename, self.cache_dir, revision)
        return Path(found) if isinstance(found, str) else None

    def _ask(self, filename: str) -> HfFileMetadata:
        """What the Hub says of the file: commit, hash, size."""

        def ask() -> HfFileMetadata:
            url = hf_hub_url(self.name, filename, revision=self.commit or self.revision)
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(
                url, token=self.token, timeout=timeout, library_name="segmodels"
            )
            if not COMMIT.fullmatch(found.commit_hash or ""):
                raise FileMetadataError(f"{url} names no commit")
            return found

        return self._patiently(ask, filename)

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

    def _patiently(self, request: Callable[[], T], filename: str) -> T:
        """What `request` gives, repeated for some seconds while the Hub fails, unless a cached copy
        is at hand. Its errors are CheckpointErrors."""
        waits = () if self._cached(filename) and not self.force_download else WAITS
        began = time.monotonic()
        for wait in (*waits, None):
            try:
                return request()
            except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
                explained = _explanation(error, self.name, filename, self.revision)
                passing = isinstance(explained, HubUnavailableError) and explained.passing
                if wait is None or not passing or time.monotonic() - began > PATIENCE:
                    raise explained from error
                time.sleep(wait)
        raise AssertionError("the last wait is None")


def from_repository(
    source: str, download: Download, load: Callable[[Folder | HubRepository], T]
) -> T:
    """What `load` makes of the files of a folder or of a Hub repository; of the cached ones, with a
    warning in the log, where the Hub cannot be asked.

    Raises CheckpointError if `source` is neither, or lacks a file.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return load(Folder(folder))
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise CheckpointError(
            f"{source!r} is neither a folder that exists nor a Hub id like 'org/name'"
        ) from error
    if download.get("force_download") and download.get("local_files_only"):
        raise ValueError("force_download and local_files_only exclude each other")
    cached: Download = {**download, "local_files_only": True}
    if constants.HF_HUB_OFFLINE:
        download = cached
    try:
        return load(HubRepository(source, **download))
    except HubUnavailableError as error:
        if download.get("force_download") or download.get("local_files_only"):
            raise
        try:
            result = load(HubRepository(source, **cached))
        except HubUnavailableError:
            raise error from error.__cause__
        log.warning("%s. Its cached copy is used.", error)
        return result


def fetch(source: str, filename: str) -> Path:
    """The path of one file of a folder or, through the cache, of a Hub repository."""

    def load(files: Folder | HubRepository) -> Path:
        path = files.fetch(filename)
        files.keep()
        return path

    return from_repository(source, {}, load)


def _explanation(error: Exception, name: str, filename: str, revision: str) -> CheckpointError:
    """What went wrong on the Hub, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return HubUnavailableError(
            f"{name} is gated: ask for access on its page, log in with `hf auth login` or pass a "
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
            f"there is no {name} on the Hub that this user may read: check the name; if it is "
            "private, log in with `hf auth login` or pass a token that may read it"
        )
    if isinstance(error, HTTPError) and (status is None or status in (408, 429) or status >= 500):
        reason = f"answers {status}" if status else f"cannot be reached ({error})"
        return HubUnavailableError(
            f"the Hub ({constants.ENDPOINT}) {reason}, and {filename} of {name} is needed from "
            "it: is this machine online? Try again later",
            passing=True,
        )
    return CheckpointError(f"{filename} of {name} could not be had from the Hub: {error}")


def _verify(path: Path, etag: str | None, name: str) -> None:
    """CheckpointError, and the file is removed from the cache, unless it has the hash that the Hub
    gave as its ETag: SHA-256 of a large file, git's SHA-1 of a small one."""
    if etag is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return  # a mirror's own kind
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
            f"{path.name} of {name} came damaged (its hash is {found}, the Hub announced {etag}) "
            "and was removed from the cache: try again"
        )
