"""Real servers on loopback: one for files by URL, one that answers huggingface_hub as the Hub does."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self):
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.server.answer(self)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", sent=None, **headers):
        """Answer; `sent` below len(body) cuts the body short and closes the connection."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.released = threading.Event()
        """Set at the end, so that stalled answers let go."""

    def handle_error(self, request, client_address):
        pass  # a client that gave up is what these tests are about


@dataclass
class Script:
    """How the file server answers."""

    body: bytes = b""
    status: int = 200
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    """Bytes sent of the body by the first answers; later ones are whole."""
    held: int | None = None
    """Bytes after which a body stops, the connection staying open."""
    stalled: bool = False


class FileServer(Server):
    def __init__(self):
        super().__init__()
        self.script = Script()

    def answer(self, handler):
        script, requested = self.script, handler.headers.get("Range")
        if script.stalled:
            self.released.wait(30)
            return
        if script.status != 200:
            handler.reply(script.status, b"no")
            return
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and script.ranges else 0
        sent = script.cut.pop(0) if script.cut else None
        if start and start >= len(script.body):
            handler.reply(416)
        elif start:
            span = f"bytes {start}-{len(script.body) - 1}/{len(script.body)}"
            handler.reply(206, script.body[start:], sent, Content_Range=span)
        elif script.held:
            handler.reply(200, script.body, script.held)
            self.released.wait(30)
        else:
            handler.reply(200, script.body, sent)


class HubServer(Server):
    """A Hub with one model, at one revision."""

    def __init__(self):
        super().__init__()
        self.repo = "org/falcon"
        self.files: dict[str, bytes] = {}
        self.denial: tuple[int, str] | None = None
        """HTTP status and X-Error-Code of every answer about files."""
        self.cut: str | None = None
        self.stalled: str | None = None
        """How the requests that stall begin, such as "GET /api"."""
        self.damaged: str | None = None

    def answer(self, handler):
        path = handler.path.partition("?")[0]
        if self.stalled and f"{handler.command} {path}".startswith(self.stalled):
            self.released.wait(30)
        elif match := re.fullmatch(r"/api/models/(\w+/\w+)/revision/(\w+)", path):
            self._known(handler, *match.groups()) and handler.reply(200, self._info())
        elif match := re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", path):
            repo, revision, name = match.groups()
            self._known(handler, repo, revision) and self._file(handler, name)
        else:
            handler.reply(404)

    def _known(self, handler, repo, revision):
        if repo != self.repo:
            handler.reply(404, X_Error_Code="RepoNotFound")
        elif revision != REVISION:
            handler.reply(404, X_Error_Code="RevisionNotFound")
        else:
            return True
        return False

    def _info(self):
        siblings = [{"rfilename": name} for name in self.files]
        return json.dumps({"id": self.repo, "sha": REVISION, "siblings": siblings}).encode()

    def _file(self, handler, name):
        if self.denial:
            handler.reply(self.denial[0], X_Error_Code=self.denial[1])
            return
        body = self.files[name]
        digest = hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1
        sent = len(body) // 2 if name == self.cut else None
        etag = f'"{digest(body).hexdigest()}"'
        if name == self.damaged:
            body = body[:-1] + bytes([body[-1] ^ 1])
        handler.reply(200, body, sent, ETag=etag, X_Repo_Commit=REVISION)


def _run(server: Server) -> Iterator[Server]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[FileServer]:
    yield from _run(FileServer())


@pytest.fixture
def hub() -> Iterator[HubServer]:
    yield from _run(HubServer())


@pytest.fixture
def quick(monkeypatch):
    """Keep every retry and timeout, without the waiting."""
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)


@pytest.fixture
def refused() -> str:
    """A URL that nobody listens at."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}"
