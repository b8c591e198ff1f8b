"""The command as a person or a script meets it: a line a check, --json, exit codes, never a traceback."""

import json

import pytest
from rich.console import Console

from falcon_job.commands import doctor as command
from falcon_job.commands.doctor.finding import Surroundings, note, ok, problem

NAMES = [check.__name__.removeprefix("check_").replace("_", " ") for check in command.CHECKS]


def statuses(printed: str) -> dict[str, str]:
    """Return the status of each line by the name of its check; every name must be printed, in order."""
    lines = printed.splitlines()
    assert len(lines) == len(NAMES)
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
    assert "gpu" in noted
    assert noted <= {"gpu", "packages", "disk", "memory", "shared memory", "cores", "bitsandbytes"}, "of this machine"


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
    assert found["gpu"] == "note", "the bad settings count as none"


def test_bad_params_leave_the_rest_to_be_checked(clone):
    (clone.folder / "params.yaml").write_text("model: {}\n")
    assert clone.finding("weights")[0] == "note"
    assert clone.finding("dvc")[0] == "ok"
    assert clone.finding("packages")[0] in ("ok", "note")


@pytest.mark.parametrize("content", ["model: {}\n", "a: b: c\n", "- 1\n", None])
def test_bad_params_are_one_problem(clone, content):
    (clone.folder / "params.yaml").unlink()
    if content:
        (clone.folder / "params.yaml").write_text(content)
    status, said, fix = clone.finding("params")
    assert status == "problem"
    assert "params.yaml" in said
    assert "\n" not in said
    assert "falcon-job preset demo" in fix


def test_outside_a_clone_the_machine_is_checked_and_nothing_is_a_problem(elsewhere):
    done = elsewhere.doctor()
    assert done.returncode == 0
    found = statuses(done.stdout)
    assert [found[name] for name in ("packages", "params", "weights")] == ["note"] * 3
    assert found["torch"] == found["git"] == found["dvc"] == "ok"
    assert not list(elsewhere.folder.iterdir())


def test_a_check_that_raises_becomes_its_line_and_the_others_go_on():
    def check_first(here):
        return ok("fine")

    def check_broken_part(here):
        raise OSError("libx.so: cannot open shared object file\nand more")

    found = command.examine((check_broken_part, check_first), Surroundings())
    assert found["first"] == ok("fine")
    assert found["broken part"].status == "problem"
    assert "OSError: libx.so: cannot open shared object file)" in found["broken part"].found


def test_what_a_library_prints_is_no_part_of_the_report(monkeypatch, capsys, tmp_path):
    def check_chatty(here):
        print("Welcome to bitsandbytes!")
        return ok("fine")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "CHECKS", (check_chatty,))
    command.doctor(as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "ok": True,
        "checks": [{"name": "chatty", "status": "ok", "found": "fine", "fix": None}],
    }
    assert "Welcome" in printed.err


def test_a_problem_gives_3_in_json_too(monkeypatch, capsys):
    monkeypatch.setattr(command, "CHECKS", (lambda here: problem("bad", "mend it"), command.check_cores))
    with pytest.raises(SystemExit) as stopped:
        command.doctor(as_json=True)
    assert stopped.value.code == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_notes_alone_give_0_and_long_lines_stay_whole(monkeypatch, capsys):
    long = "found [red]much[/red] " + "x" * 300
    monkeypatch.setattr(command, "CHECKS", (lambda here: note(long, "do :smile:"),))
    command.doctor(as_json=False)
    assert capsys.readouterr().out.endswith(f"{long}: do :smile:\n")


def test_a_terminal_gets_columns_that_wrap(monkeypatch, capsys):
    monkeypatch.setattr(command, "Console", lambda **options: Console(force_terminal=True, width=60, **options))
    monkeypatch.setattr(command, "CHECKS", (lambda here: problem("far too long " * 10, "shorten it [now]"),))
    with pytest.raises(SystemExit) as stopped:
        command.doctor(as_json=False)
    assert stopped.value.code == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert "problem" in lines[0]
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert "[now]" in lines[-1]
