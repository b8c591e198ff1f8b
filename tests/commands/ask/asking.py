"""What tests of `falcon-job ask` share."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from falcon_job.cli import cli
from falcon_job.errors import InputError
from falcon_job.records.dataset import read_passages

ROOT = Path(__file__).parents[3]


def first_passage(workspace):
    return read_passages(workspace.data / "dev.json")[0]


def predictions(workspace):
    return json.loads((workspace.build / "predictions.json").read_text())


def ask(*arguments, typed=None):
    """Run `falcon-job ask`; an error of ours is raised, as `main` would print it."""
    result = CliRunner().invoke(cli, ["ask", *map(str, arguments)], input=typed)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answers(result):
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(match, *arguments, typed=None):
    with pytest.raises(InputError, match=match) as caught:
        ask(*arguments, typed=typed)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
