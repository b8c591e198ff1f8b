import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests
from click.testing import CliRunner
from packaging.requirements import Requirement

from tools import audit

PINS = """# a lock
harmless==1.0
numpy==2.4.6 ; python_full_version < '3.12'
numpy==2.5.5 ; python_full_version >= '3.12'
pywin32==312 ; sys_platform == 'win32'
"""


def advisory(name, package="numpy", aliases=()):
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.6"}]}
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [fixed]}
    return {"id": name, "aliases": list(aliases), "summary": "bad", "affected": [affected]}


def knows(advisories):
    """Respond like the database, which returns an empty object for a package without advisories."""
    return lambda query: (200, json.dumps({"vulns": advisories} if query["package"]["name"] == "numpy" else {}))


@contextmanager
def serve(answer):
    """Serve a database on loopback and record the queries; an answer of None closes the connection."""
    asked = []

    class Database(BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((query["package"]["name"], query["version"]))
            if reply := answer(query):
                self.send_response(reply[0])
                self.end_headers()
                self.wfile.write(reply[1].encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
        server.shutdown()


@pytest.fixture
def run(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    lock.write_text(PINS, encoding="utf-8")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return lambda url: CliRunner().invoke(audit.main, ["--lock", str(lock)], env={"PIP_AUDIT_OSV_URL": url})


def test_a_vulnerability_fails_and_is_shown_with_its_fix(run):
    with serve(knows([advisory("GHSA-aaaa")])) as (url, _):
        result = run(url)
    assert result.exit_code == 1
    assert "skipped" not in result.output
    assert ["numpy", "2.4.6", "GHSA-aaaa", "2.6"] in [line.split() for line in result.output.splitlines()]


def test_a_lock_without_vulnerabilities_passes(run):
    with serve(knows([])) as (url, _):
        result = run(url)
    assert (result.exit_code, result.output) == (0, "no known vulnerabilities in 4 pins\n")


def test_the_pins_of_all_platforms_are_looked_up(run):
    with serve(knows([])) as (url, asked):
        run(url)
    assert set(asked) == {("harmless", "1.0"), ("numpy", "2.4.6"), ("numpy", "2.5.5"), ("pywin32", "312")}


def test_one_vulnerability_under_two_names_is_one_row(run):
    with serve(knows([advisory("GHSA-aaaa", aliases=["CVE-1"]), advisory("PYSEC-1", aliases=["CVE-1"])])) as (url, _):
        result = run(url)
    assert result.output.count("2.4.6") == 1


def test_an_accepted_vulnerability_passes_and_is_listed_with_its_reason(run, monkeypatch):
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "why not")
    with serve(knows([advisory("GHSA-aaaa", aliases=["CVE-1"])])) as (url, _):
        result = run(url)
    assert result.exit_code == 0
    assert "accepted: CVE-1, why not\n" in result.output


def test_an_accepted_vulnerability_does_not_hide_another(run, monkeypatch):
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "why not")
    with serve(knows([advisory("CVE-1"), advisory("CVE-2")])) as (url, _):
        result = run(url)
    assert result.exit_code == 1
    assert "CVE-2" in result.output


def test_a_refused_connection_skips_the_audit_and_says_why_in_one_line(run):
    with serve(knows([])) as (url, _):
        pass
    result = run(url)
    assert result.exit_code == 0
    assert result.output.startswith("audit skipped: ")
    assert "refused" in result.output
    assert result.output.count("\n") == 1


def test_a_timeout_skips_the_audit_and_says_why(run, monkeypatch):
    monkeypatch.setattr(audit, "TIMEOUT", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        result = run(f"http://127.0.0.1:{silent.server_port}/")
    assert result.exit_code == 0
    assert result.output.startswith("audit skipped: ")
    assert "timed out" in result.output


def test_a_connection_timeout_skips_the_audit_and_says_why(run, monkeypatch):
    def post(*arguments, **options):
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests.Session, "post", post)
    result = run("http://127.0.0.1/")
    assert result.exit_code == 0
    assert "audit skipped: Could not connect" in result.output


@pytest.mark.parametrize(
    "reply", [(500, "{}"), (404, "{}"), (200, "<html>Log in here"), (200, '{"error": "?"}')], ids=str
)
def test_an_unexpected_response_is_an_error(run, reply):
    with serve(lambda query: reply) as (url, _):
        result = run(url)
    assert result.exit_code == 1
    assert "skipped" not in result.output
    assert result.exception


def test_a_connection_lost_during_the_audit_is_an_error(run):
    with serve(lambda query: (200, "{}") if query["package"]["name"] == "harmless" else None) as (url, _):
        result = run(url)
    assert result.exit_code == 1
    assert "skipped" not in result.output


def test_a_failure_of_the_audit_itself_is_an_error(run, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(audit.OsvService, "query", fail)
    result = run("http://127.0.0.1/")
    assert result.exit_code == 1
    assert "skipped" not in result.output


def test_every_accepted_vulnerability_is_of_a_locked_package():
    locked = {Requirement(line).name for line in (audit.ROOT / "requirements.lock").read_text("utf-8").splitlines()[1:]}
    assert {reason.partition(",")[0] for reason in audit.ACCEPTED.values()} <= locked
