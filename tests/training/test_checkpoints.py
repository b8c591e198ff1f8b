from falcon_job.machine import Machine
from falcon_job.model.compute import ComputeSettings
from falcon_job.training.checkpoints import forget, recall

BEGUN = ComputeSettings("flex", "on", "on", 2048)
NOW = ComputeSettings("flex", "on", "off", 8192)
DENSE = ComputeSettings("sdpa", "off", "off", 2048)


def checkpoint(folder):
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "trainer_state.json").write_text("{}")


def begin(folder, engine):
    assert recall(folder, engine, Machine()) == engine
    checkpoint(folder)


def test_a_resumed_run_goes_on_as_it_began(tmp_path, caplog):
    caplog.set_level("INFO")
    begin(tmp_path, BEGUN)

    assert recall(tmp_path, NOW, Machine()) == BEGUN
    assert "as when the checkpoints began" in caplog.text


def test_a_first_try_that_left_no_checkpoint_binds_nothing(tmp_path):
    recall(tmp_path, BEGUN, Machine())

    assert recall(tmp_path, NOW, Machine()) == NOW


def test_a_setting_that_is_given_on_resume_holds(tmp_path):
    begin(tmp_path, BEGUN)

    assert recall(tmp_path, NOW, Machine(tokens_per_pack=8192)) == ComputeSettings("flex", "on", "on", 8192)


def test_on_a_machine_without_the_kernel_nothing_is_recalled(tmp_path):
    begin(tmp_path, BEGUN)

    assert recall(tmp_path, DENSE, Machine()) == DENSE
    assert recall(tmp_path, NOW, Machine()) == BEGUN, "how it began is not forgotten"


def test_nor_where_another_kernel_is_asked_for(tmp_path):
    begin(tmp_path, DENSE)

    assert recall(tmp_path, NOW, Machine(attention="flex")) == NOW


def test_dense_attention_which_every_machine_has_is_recalled_where_flex_would_be_chosen(tmp_path):
    begin(tmp_path, DENSE)

    assert recall(tmp_path, NOW, Machine()) == DENSE


def test_what_was_given_to_begin_with_is_recalled_too(tmp_path):
    recall(tmp_path, DENSE, Machine(attention="sdpa", tokens_per_pack=2048))
    checkpoint(tmp_path)

    assert recall(tmp_path, NOW, Machine()) == DENSE


def test_a_run_that_is_done_leaves_nothing_to_recall(tmp_path):
    begin(tmp_path, BEGUN)
    forget(tmp_path)

    assert recall(tmp_path, NOW, Machine()) == NOW
