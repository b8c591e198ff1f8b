"""Download models of the Hugging Face Hub into its own cache, with errors that say what to do.

huggingface_hub reads these variables when it is first imported: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, the
proxy variables, and the timeouts HF_HUB_ETAG_TIMEOUT (metadata of models and files) and HF_HUB_DOWNLOAD_TIMEOUT.
"""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from packaging.version import Version

from falcon_job.errors import InputError, JobError, first_line

if Version(version("huggingface-hub")) >= Version("2"):
    import httpx2 as httpx
else:  # transformers 5.17 needs huggingface_hub 1
    import httpx  # type: ignore[no-redef, import-not-found]

logger = logging.getLogger(__name__)

BAD_URL_ERRORS = (httpx.InvalidURL, httpx.UnsupportedProtocol)
TRANSFER_ERRORS = (httpx.HTTPError, *BAD_URL_ERRORS, OSError)
"""What huggingface_hub raises when a URL, a server, the network or the disk fails."""
HUB_ERRORS = (*TRANSFER_ERRORS, EntryNotFoundError, ValueError, RuntimeError)
"""What huggingface_hub raises when the Hub refuses, fails or sends an invalid response."""


def list_files(source: str, revision: str) -> list[str]:
    """Return the names of a model's files on the Hub; those in subfolders are "folder/name".

    Args:
        source: Hub id, owner/name.
        revision: full commit, 40 hex digits.

    Raises:
        InputError: there is no such model or revision, or no permission to read it.
        JobError: the network failed, or HF_HUB_OFFLINE is set.
    """
    try:
        # This takes a timeout. snapshot_download of huggingface_hub 2.4 would wait for a stalled Hub forever.
        model = HfApi().model_info(source, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HUB_ERRORS as error:
        raise _explain(error, source, revision) from error
    return [file.rfilename for file in model.siblings or ()]


def download_files(source: str, revision: str, names: Iterable[str]) -> Path:
    """Download the named files of a model in this order, unless the cache has them; return their folder in the cache.

    Raises:
        InputError: there is no such model or file, or no permission to read it.
        JobError: the network failed, or HF_HUB_OFFLINE is set and a file is missing.
    """
    get_session().timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # for requests that set none, such as those to Xet
    try:
        paths = [hf_hub_download(source, name, revision=revision) for name in names]
    except HUB_ERRORS as error:
        raise _explain(error, source, revision) from error
    return Path(paths[0]).parent


def find_in_cache(source: str, revision: str) -> Path | None:
    """Return the folder of a model in the cache, complete or not; None if its config.json is not there.

    Raises:
        InputError: `source` cannot be a Hub id.
    """
    try:
        config = try_to_load_from_cache(source, "config.json", revision=revision)
    except HFValidationError as error:
        raise _explain(error, source, revision) from error
    return Path(config).parent if isinstance(config, str) else None


def _explain(error: Exception, source: str, revision: str) -> JobError:
    """Return an error that says what to do. It never quotes the request, so it cannot leak a token."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the Hub could not be reached, not just "not in the cache"
    place = f"model.source: {source} at revision {revision}"
    if isinstance(error, GatedRepoError):
        fix = f"accept the licence on {constants.ENDPOINT}/{source}, then {_with_token()}"
        return InputError("is gated", place=place, fix=fix)
    if isinstance(error, RepositoryNotFoundError):
        fix = f"correct model.source; if the model is private, {_with_token()}"
        return InputError("is not on the Hub, or is private", place=place, fix=fix)
    if isinstance(error, RevisionNotFoundError):
        return InputError("does not exist, though the model does", place=place, fix="correct model.revision")
    if isinstance(error, HFValidationError):
        problem = f"is not a Hub id ({first_line(error)})"
        return InputError(problem, place=f"model.source: {source}", fix="write it as owner/name")
    if isinstance(error, OfflineModeIsEnabled):
        problem = "is not complete in the cache, and HF_HUB_OFFLINE is set"
        return JobError(problem, place=place, fix="unset HF_HUB_OFFLINE and run again")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error.response.status_code, place)
    fix = "check the network and the disk, then run again"
    return JobError(f"could not be downloaded ({first_line(error)})", place=place, fix=fix)


def _explain_status(status: int, place: str) -> JobError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return InputError(f"cannot be accessed (the Hub answered HTTP {status})", place=place, fix=_with_token())
    return JobError(f"could not be downloaded (the Hub answered HTTP {status})", place=place, fix="run again later")


def _with_token() -> str:
    return "run `falcon-job fetch` with HF_TOKEN set to a token that may read it"
