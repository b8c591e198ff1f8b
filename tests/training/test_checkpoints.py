import pytest

from falcon_job.machine import Machine
from falcon_job.model.compute import ComputeSettings
from falcon_job.training.checkpoints import delete_checkpoints, fingerprint, resume_settings
from falcon_job.workspace import Workspace

BEGUN = ComputeSettings("flex", "on", "on", 2048)
NOW = ComputeSettings("flex", "on", "off", 8192)
DENSE = ComputeSettings("sdpa", "off", "off", 2048)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A clone with one stage, which depends on a folder and a param."""
    (tmp_path / "dvc.yaml").write_text("stages: {train: {deps: [code], params: [train]}}\n")
    (tmp_path / "params.yaml").write_text("{train: {seed: 0}, export: {verify: 8}}\n")
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "steps.py").write_text("STEPS = 1\n")
    return Workspace(tmp_path)


def checkpoint(folder):
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "trainer_state.json").write_text("{}")


def begin(folder, settings):
    assert resume_settings(folder, settings, Machine()) == settings
    checkpoint(folder)


def test_a_resumed_run_goes_on_as_it_began(tmp_path, caplog):
    caplog.set_level("INFO")
    begin(tmp_path, BEGUN)

    assert resume_settings(tmp_path, NOW, Machine()) == BEGUN
    assert "resuming with the machine settings of the checkpoints" in caplog.text


def test_a_first_try_that_left_no_checkpoint_binds_nothing(tmp_path):
    resume_settings(tmp_path, BEGUN, Machine())

    assert resume_settings(tmp_path, NOW, Machine()) == NOW


def test_a_setting_that_is_given_on_resume_holds(tmp_path):
    begin(tmp_path, BEGUN)

    assert resume_settings(tmp_path, NOW, Machine(tokens_per_pack=8192)) == ComputeSettings("flex", "on", "on", 8192)


def test_on_a_machine_without_the_kernel_nothing_is_recalled(tmp_path):
    begin(tmp_path, BEGUN)

    assert resume_settings(tmp_path, DENSE, Machine()) == DENSE
    assert resume_settings(tmp_path, NOW, Machine()) == BEGUN, "how it began is not forgotten"


def test_nor_where_another_kernel_is_asked_for(tmp_path):
    begin(tmp_path, DENSE)

    assert resume_settings(tmp_path, NOW, Machine(attention="flex")) == NOW


def test_dense_attention_is_recalled_where_flex_would_be_chosen(tmp_path):
    begin(tmp_path, DENSE)

    assert resume_settings(tmp_path, NOW, Machine()) == DENSE


def test_what_was_given_to_begin_with_is_recalled_too(tmp_path):
    resume_settings(tmp_path, DENSE, Machine(attention="sdpa", tokens_per_pack=2048))
    checkpoint(tmp_path)

    assert resume_settings(tmp_path, NOW, Machine()) == DENSE


def test_a_run_that_is_done_leaves_nothing_to_recall(tmp_path):
    begin(tmp_path, BEGUN)
    delete_checkpoints(tmp_path)

    assert resume_settings(tmp_path, NOW, Machine()) == NOW


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("code/steps.py", "STEPS = 2\n"),
        ("code/new.py", ""),
        ("params.yaml", "{train: {seed: 1}, export: {verify: 8}}\n"),
    ],
)
def test_a_changed_dependency_or_param_changes_the_fingerprint(workspace, file, text):
    before = fingerprint(workspace, "train")
    workspace.path(file).write_text(text)
    assert fingerprint(workspace, "train") != before


@pytest.mark.parametrize(
    ("file", "text"),
    [("code/__pycache__/steps.pyc", "bytecode"), ("params.yaml", "{train: {seed: 0}, export: {verify: 9}}\n")],
)
def test_bytecode_and_params_of_other_stages_leave_the_fingerprint(workspace, file, text):
    before = fingerprint(workspace, "train")
    workspace.path(file).write_text(text)
    assert fingerprint(workspace, "train") == before
