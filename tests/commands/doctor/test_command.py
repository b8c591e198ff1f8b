"""The command as a person or a script meets it: a line for each check, --json, exit codes, never a traceback."""

import json

import pytest

from falcon_job.commands import doctor as command
from falcon_job.commands.doctor.finding import Finding, Surroundings, look_around
from falcon_job.errors import InputError, Problem

NAMES = [check.__name__.removeprefix("check_").replace("_", " ") for check in command.CHECKS]


def statuses(printed: str) -> dict[str, str]:
    """Return the status of each line by the name of its check; every name must be printed, in order."""
    lines = printed.splitlines()
    for line, name in zip(lines, NAMES, strict=True):
        assert line[9:].startswith(f"{name} "), line
    return {name: line.split()[0] for line, name in zip(lines, NAMES, strict=True)}


def test_a_machine_without_a_gpu_is_fit_and_text_and_json_agree(clone):
    text, machine_readable = clone.doctor(), clone.doctor("--json")
    assert text.returncode == machine_readable.returncode == 0
    assert not text.stderr
    assert not machine_readable.stderr
    report = json.loads(machine_readable.stdout)
    assert report["ok"] is True
    assert {check["name"]: check["status"] for check in report["checks"]} == statuses(text.stdout)
    for check, line in zip(report["checks"], text.stdout.splitlines(), strict=True):
        assert check.keys() == {"name", "status", "found", "fix"}
        assert (check["fix"] is None) == (check["status"] == "ok"), check
        assert check["status"] == "ok" or line.endswith(check["fix"])
    noted = {check["name"] for check in report["checks"] if check["status"] == "note"}
    assert noted <= {"gpu", "packages", "compiler", "disk", "memory", "shared memory", "bitsandbytes"}, (
        "of this machine"
    )


def test_everything_wrong_at_once_gives_3_and_a_line_each(clone, tmp_path):
    clone.set_model(source="org/falcon-7b", revision="0" * 40, precision="nf4")
    (tmp_path / "bin").mkdir()
    env = {
        "PATH": str(tmp_path / "bin"),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/proc/hf",
        "DVC_SITE_CACHE_DIR": "/proc/dvc",
        "FALCON_JOB_DEVICE": "cuda",
        "FALCON_JOB_WORKERS": "-1",
        "CC": "no-such-compiler",
    }
    done = clone.doctor(**env)
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    found = statuses(done.stdout)
    assert {found[name] for name in ("folders", "dvc", "settings", "weights")} == {"problem"}
    assert {found[name] for name in ("compiler", "git")} == {"note"}
    assert found["gpu"] == "note", "invalid settings count as none"


def test_outside_a_clone_the_machine_is_checked_and_nothing_is_a_problem(elsewhere):
    done = elsewhere.doctor()
    assert done.returncode == 0
    found = statuses(done.stdout)
    assert [found[name] for name in ("packages", "params", "weights")] == ["note"] * 3
    assert found["torch"] == found["git"] == found["dvc"] == "ok"
    assert not list(elsewhere.folder.iterdir())


def test_a_folder_inside_the_clone_is_in_the_clone(clone, monkeypatch):
    monkeypatch.chdir(clone.folder / "data")
    here = look_around()
    assert here.workspace.root == clone.folder
    assert here.params.model.source == "data/falcon-tiny"


def check_fine(here):
    print("Welcome to bitsandbytes!")
    return Finding("ok", "fine")


def test_a_check_that_raises_becomes_its_line_and_the_others_go_on():
    def check_broken_part(here):
        raise OSError("libx.so: cannot open shared object file\nand more")

    def check_bad_input(here):
        raise InputError("has problems", place="a file", fix="mend it", problems=[Problem("is bad", "x"), Problem("y")])

    found = command.examine((check_broken_part, check_bad_input, check_fine), Surroundings())
    assert found["broken part"].status == "problem"
    assert "OSError: libx.so: cannot open shared object file)" in found["broken part"].found
    assert found["bad input"] == Finding("problem", "a file has problems; x is bad; y", "mend it")
    assert found["fine"] == Finding("ok", "fine")


def test_what_a_library_prints_stays_out_of_the_report(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "CHECKS", (check_fine,))
    command.doctor(as_json=True)
    printed = capsys.readouterr()
    checks = [{"name": "fine", "status": "ok", "found": "fine", "fix": None}]
    assert json.loads(printed.out) == {"ok": True, "checks": checks}
    assert "Welcome" in printed.err


@pytest.mark.parametrize("status", ["note", "problem"])
def test_a_problem_gives_3_and_a_note_0_and_long_lines_stay_whole(monkeypatch, capsys, status):
    long = "found [red]much[/red] " + "x" * 300
    monkeypatch.setattr(command, "CHECKS", (lambda here: Finding(status, long, "do :smile:"), check_fine))
    for as_json in (False, True):
        code = 0
        try:
            command.doctor(as_json=as_json)
        except SystemExit as stopped:
            code = stopped.code
        assert code == {"note": 0, "problem": 3}[status]
        printed = capsys.readouterr().out
        if as_json:
            assert json.loads(printed)["ok"] is (status == "note")
        else:
            assert f"{long}: do :smile:\n" in printed
