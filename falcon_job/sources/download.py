"""One file by URL: resumed after a kill, checked by its sha256, kept under that name."""

import logging
from http import HTTPStatus
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

# Not documented, but the same from huggingface_hub 1.0 to 2.4. It does what we would otherwise write: retries, timeouts
# (HF_HUB_DOWNLOAD_TIMEOUT), resumption by Range (a restart where a server ignores it), proxies, HF_HUB_OFFLINE, and
# progress on a terminal only.
from huggingface_hub.file_download import http_get

from falcon_job.errors import InputError, JobError, first_line
from falcon_job.files import sha256_file
from falcon_job.sources.hub import BAD_URL_ERRORS, TRANSFER_ERRORS

logger = logging.getLogger(__name__)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the file `folder`/`sha256`, downloaded from `url` unless it is there already.

    A download that was interrupted is kept as `folder`/`sha256`.part, and continued by the next call.

    Raises:
        InputError: the server refuses the URL, or the content has another sha256 (nothing of it is kept).
        JobError: the network or the disk failed; what has arrived is kept.
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
            # Compressed bytes could not be resumed. No token is sent, since the server may be anyone's.
            http_get(url, file, resume_size=file.tell(), headers={"Accept-Encoding": "identity"})
    except TRANSFER_ERRORS as error:
        # HTTP 416 means that the server has no more bytes than we do: the checksum will tell whether they are right.
        if not _has_status(error, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise _explain(url, error) from error


def _check(url: str, part: Path, sha256: str) -> None:
    actual = sha256_file(part)
    if actual != sha256:
        part.unlink()
        raise InputError(
            f"has sha256 {actual}, but params.yaml says {sha256}",
            place=url,
            fix="run again (the download was removed), or correct the sha256 if the file was meant to change",
        )


def _has_status(error: Exception, status: HTTPStatus) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code == status


def _explain(url: str, error: Exception) -> JobError:
    """Return an error that says what to do about a failed download."""
    if isinstance(error, OfflineModeIsEnabled):
        problem = "is not downloaded yet, and HF_HUB_OFFLINE is set"
        return JobError(problem, place=url, fix="unset it and run again")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(url, error.response.status_code)
    if isinstance(error, BAD_URL_ERRORS):
        return InputError(f"is not a valid URL ({first_line(error)})", place=url, fix="correct it in params.yaml")
    fix = "check the network and the disk, then run again"
    return JobError(f"could not be downloaded ({first_line(error)})", place=url, fix=fix)


def _explain_status(url: str, status: int) -> JobError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        fix = "download it by hand and name the file in params.yaml instead"
        return InputError(f"needs permission (HTTP {status})", place=url, fix=fix)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return JobError(f"is not available at present (HTTP {status})", place=url, fix="run again later")
    return InputError(f"was refused by the server (HTTP {status})", place=url, fix="correct the URL in params.yaml")
