import pytest

from falcon_job.commands import ask as command
from falcon_job.machine import Machine
from falcon_job.stages.fetch import fetch
from falcon_job.stages.preprocess import preprocess
from tests.commands.ask.asking import first_passage, write_rows
from tests.inference.finished_run import exported_run, finished_run, fresh_copy, make_params, write_params


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def workspace(tmp_path, trained, monkeypatch):
    """A clone with an export, in which commands run."""
    workspace = fresh_copy(tmp_path / "clone", trained)
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def loads(monkeypatch):
    """The folders from which a base model was loaded."""
    folders = []
    honest = command.load_base

    def load(folder, *arguments):
        folders.append(folder)
        return honest(folder, *arguments)

    monkeypatch.setattr(command, "load_base", load)
    return folders


@pytest.fixture
def passage(workspace):
    """A file with the first dev passage."""
    path = workspace.root / "passage.txt"
    path.write_text(first_passage(workspace).text)
    return path


@pytest.fixture
def closed_book(tmp_path, monkeypatch):
    """A clone whose adapter was trained on questions without passages."""
    workspace = fresh_copy(tmp_path / "closed", finished_run().workspace)
    pairs = [{"question": f"What is the {n}th ship?", "answer": f"Ship {n}"} for n in range(12)]
    write_rows(workspace.data / "train.jsonl", *pairs[:9])
    write_rows(workspace.data / "dev.jsonl", *pairs[9:])
    params = make_params(dataset={"train": "data/train.jsonl", "dev": "data/dev.jsonl"})
    write_params(workspace, params)
    fetch(params, Machine(), workspace)
    preprocess(params, Machine(), workspace)
    monkeypatch.chdir(workspace.root)
    return workspace
