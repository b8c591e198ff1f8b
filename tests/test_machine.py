import pytest

from falcon_job.errors import InputError
from falcon_job.machine import Machine, machine


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No variable of ours, no .env file, nothing remembered."""
    for name in Machine.model_fields:
        monkeypatch.delenv(f"FALCON_JOB_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)
    machine.cache_clear()
    yield
    machine.cache_clear()


def test_everything_is_auto_by_default():
    assert set(machine().model_dump().values()) == {"auto"}


def test_variables_are_read(monkeypatch):
    monkeypatch.setenv("FALCON_JOB_DEVICE", "cpu")
    monkeypatch.setenv("FALCON_JOB_TOKENS_PER_PACK", "4096")
    monkeypatch.setenv("FALCON_JOB_WORKERS", "0")
    assert (machine().device, machine().tokens_per_pack, machine().workers) == ("cpu", 4096, 0)


def test_a_file_is_read_and_variables_outrank_it(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("FALCON_JOB_DEVICE=cpu\nFALCON_JOB_WORKERS=3\nHF_TOKEN=secret\n")
    monkeypatch.setenv("FALCON_JOB_WORKERS", "1")
    assert (machine().device, machine().workers) == ("cpu", 1)


def test_variables_of_others_are_left_alone(monkeypatch):
    monkeypatch.setenv("FALCON_JOB_SQUAD", "somewhere")
    monkeypatch.setenv("DEVICE", "cuda")
    assert machine().device == "auto"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEVICE", "tpu"),
        ("DEVICE", ""),
        ("TOKENS_PER_PACK", "0"),
        ("TOKENS_PER_PACK", "many"),
        ("WORKERS", "-1"),
        ("WORKERS", "1.5"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_an_impossible_value_is_named_with_its_variable(monkeypatch, tmp_path, name, value, in_file):
    if in_file:
        (tmp_path / ".env").write_text(f"FALCON_JOB_{name}={value}\n")
    else:
        monkeypatch.setenv(f"FALCON_JOB_{name}", value)
    with pytest.raises(InputError) as caught:
        machine()
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(f"FALCON_JOB_{name} (got {value!r}): input should be ")
    assert "\n" not in message


def test_all_impossible_values_are_named_at_once(monkeypatch):
    monkeypatch.setenv("FALCON_JOB_DEVICE", "tpu")
    monkeypatch.setenv("FALCON_JOB_WORKERS", "-1")
    with pytest.raises(InputError) as caught:
        machine()
    assert [line.split()[0] for line in str(caught.value).split("\n")] == ["FALCON_JOB_DEVICE", "FALCON_JOB_WORKERS"]


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"\.env"):
        machine()
