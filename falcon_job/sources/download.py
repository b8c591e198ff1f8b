"""Download a file from a URL: resumed if interrupted, checked by its sha256, and stored under that name."""

import logging
from http import HTTPStatus
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

# Undocumented, but unchanged from huggingface_hub 1.0 to 2.4. It handles retries, timeouts (HF_HUB_DOWNLOAD_TIMEOUT),
# resuming with Range requests (or restarting, if a server ignores them), proxies, HF_HUB_OFFLINE, and a progress bar
# that only a terminal shows.
from huggingface_hub.file_download import http_get

from falcon_job.errors import InputError, JobError, first_line
from falcon_job.files import sha256_file
from falcon_job.sources.hub import BAD_URL_ERRORS, TRANSFER_ERRORS

logger = logging.getLogger(__name__)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the file `folder`/`sha256`, downloaded from `url` unless it is there already.

    An interrupted download is kept as `folder`/`sha256`.part, and the next call resumes it.

    Raises:
        InputError: the server refuses the URL, or the content has another sha256 (the download is deleted).
        JobError: the network or the disk failed (the partial download is kept).
    """
    complete, part = folder / sha256, folder / f"{sha256}.part"
    if not _has_hash(complete, sha256):
        if not _has_hash(part, sha256):
            _transfer(url, part)
            _check(url, part, sha256)
        part.replace(complete)
    return complete


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _transfer(url: str, part: Path) -> None:
    logger.info("downloading %s", url)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            # A compressed transfer could not be resumed. No token is sent, because the server may be anyone's.
            http_get(url, file, resume_size=file.tell(), headers={"Accept-Encoding": "identity"})
    except TRANSFER_ERRORS as error:
        # HTTP 416 means that the server has no more bytes than we do. The checksum will tell whether ours are right.
        if not _has_status(error, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise _explain(url, error) from error


def _check(url: str, part: Path, sha256: str) -> None:
    actual = sha256_file(part)
    if actual != sha256:
        part.unlink()
        raise InputError(
            f"has sha256 {actual}, but params.yaml says {sha256}",
            place=url,
            fix="run again (the download was deleted), or correct the sha256 if the file was meant to change",
        )


def _has_status(error: Exception, status: HTTPStatus) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code == status


def _explain(url: str, error: Exception) -> JobError:
    """Return an error that says what to do about a failed download."""
    if isinstance(error, OfflineModeIsEnabled):
        problem = "is not downloaded yet, and HF_HUB_OFFLINE is set"
        return JobError(problem, place=url, fix="unset HF_HUB_OFFLINE and run again")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(url, error.response.status_code)
    if isinstance(error, BAD_URL_ERRORS):
        return InputError(f"is not a valid URL ({first_line(error)})", place=url, fix="correct it in params.yaml")
    fix = "check the network and the disk, then run again"
    return JobError(f"could not be downloaded ({first_line(error)})", place=url, fix=fix)


def _explain_status(url: str, status: int) -> JobError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        fix = "download it by hand and set the path of the file in params.yaml instead"
        return InputError(f"needs permission (HTTP {status})", place=url, fix=fix)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return JobError(f"is currently not available (HTTP {status})", place=url, fix="run again later")
    return InputError(f"was refused by the server (HTTP {status})", place=url, fix="correct the URL in params.yaml")
