"""Models of the Hugging Face Hub, into its own cache (HF_HOME), with errors that say what to do.

huggingface_hub respects HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and the proxy variables, as they stand
when it is first imported.
"""

import logging
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import constants, get_session, snapshot_download
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
from huggingface_hub.utils.tqdm import disable_progress_bars

from falcon_job.errors import InputError, JobError, first_line
from falcon_job.sources.http import httpx

logger = logging.getLogger(__name__)


def download_snapshot(source: str, revision: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a model's files, downloading those that the cache lacks.

    Args:
        source: Hub id, owner/name.
        revision: full commit, 40 hex digits.
        patterns: names wanted, among the files at the repository's root.

    Raises:
        InputError: no such model or revision, or no permission to read it.
        JobError: the network failed, or offline and not in the cache.
    """
    logger.info("base model: %s at revision %s, downloading what the cache lacks", source, revision)
    _bound_requests()
    if not sys.stderr.isatty():
        disable_progress_bars()  # one of its bars does not look for a terminal
    try:
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except (httpx.HTTPError, EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        raise _explain(_cause(error), source, revision) from error


def _bound_requests() -> None:
    """Bound every request in time: huggingface_hub 2.4 lists files without one, so a stalled Hub hangs."""
    hooks = get_session().event_hooks["request"]
    if _set_timeout not in hooks:
        hooks.append(_set_timeout)


def _set_timeout(request: httpx.Request) -> None:
    if request.extensions["timeout"]["read"] is None:
        request.extensions["timeout"] = httpx.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT).as_dict()


def _cause(error: Exception) -> Exception:
    """Unwrap "not in the cache" to why the Hub could not be asked."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _explain(error: Exception, source: str, revision: str) -> JobError:
    """Say what the user can do; the text never holds a request, so never a token."""
    model = f"model.source: {source} at revision {revision}"
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{source}"
        return InputError(
            f"{model} is gated: accept the licence on {page}, then run `falcon-job fetch` with HF_TOKEN set to a token "
            "that may read it"
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{model} is not on the Hub, or private: correct model.source, or, if private, run `falcon-job fetch` with "
            "HF_TOKEN set"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{model}: the model has no such revision: correct model.revision")
    if isinstance(error, HFValidationError):
        return InputError(f"model.source: {source} is no Hub id: write owner/name ({first_line(error)})")
    if isinstance(error, OfflineModeIsEnabled):
        return JobError(f"{model} is not whole in the cache and HF_HUB_OFFLINE is set: unset it and run again")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error.response.status_code, model)
    return JobError(
        f"{model} could not be downloaded ({first_line(error)}): check the network and disk, then run again"
    )


def _explain_status(status: int, model: str) -> JobError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return InputError(
            f"{model}: the Hub refuses access (HTTP {status}): run `falcon-job fetch` with HF_TOKEN set to a valid "
            "token that may read it"
        )
    return JobError(f"{model}: the Hub answered HTTP {status}: run again later")
