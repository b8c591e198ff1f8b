"""One file by URL: resumed after a kill, checked by its sha256, kept under that name.

`huggingface_hub.file_download.http_get` does the transfer: retries, timeouts (HF_HUB_DOWNLOAD_TIMEOUT),
Range resume (a restart where a server ignores it), proxies, HF_HUB_OFFLINE, progress on a terminal only.
"""

import logging
from http import HTTPStatus
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get

from falcon_job.errors import InputError, JobError, first_line
from falcon_job.files import sha256_file
from falcon_job.sources.http import httpx

logger = logging.getLogger(__name__)


def download(url: str, sha256: str, folder: Path) -> Path:
    """Return the file `folder`/`sha256`, downloaded from `url` unless it is there already.

    A transfer that was cut goes on from `folder`/`sha256`.part at the next call.

    Raises:
        InputError: the server refuses the URL, or the content has another sha256 (nothing of it is kept).
        JobError: the network or the disk failed; what has arrived is kept.
    """
    complete, part = folder / sha256, folder / f"{sha256}.part"
    if not _holds(complete, sha256):
        if not _holds(part, sha256):
            _transfer(url, part)
            _check(url, part, sha256)
        part.replace(complete)
    return complete


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _transfer(url: str, part: Path) -> None:
    logger.info("downloading %s", url)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            # Compressed bytes could not be resumed; no token is sent, since the URL may be anyone's.
            http_get(url, file, resume_size=file.tell(), headers={"Accept-Encoding": "identity"})
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # 416: the server has nothing after what we hold, so the checksum decides.
        if not _has_status(error, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise _explain(url, error) from error


def _check(url: str, part: Path, sha256: str) -> None:
    actual = sha256_file(part)
    if actual != sha256:
        part.unlink()
        raise InputError(
            f"{url} has sha256 {actual}, params.yaml says {sha256}: the download was removed; run again, "
            "or correct the sha256 if the file was meant to change"
        )


def _has_status(error: Exception, status: HTTPStatus) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code == status


def _explain(url: str, error: Exception) -> JobError:
    """Say what the user can do about a failed transfer."""
    if isinstance(error, OfflineModeIsEnabled):
        return JobError(f"{url} is not downloaded yet and HF_HUB_OFFLINE is set: unset it and run again")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(url, error.response.status_code)
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return InputError(f"{url} is no valid URL ({first_line(error)}): correct it in params.yaml")
    return JobError(f"{url} could not be downloaded ({first_line(error)}): check the network and disk, then run again")


def _explain_status(url: str, status: int) -> JobError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        advice = "download it by hand and name the file in params.yaml instead"
        return InputError(f"{url} needs permission (HTTP {status}): {advice}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return JobError(f"{url} is not served at present (HTTP {status}): run again later")
    return InputError(f"{url} cannot be had (HTTP {status}): correct the URL in params.yaml")
