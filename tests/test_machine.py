import pytest

from falcon_job.errors import InputError
from falcon_job.machine import OTHER_VARIABLES, Machine, read_machine


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No variable of ours."""
    for name in (*Machine.model_fields, *OTHER_VARIABLES):
        monkeypatch.delenv(f"FALCON_JOB_{name.upper()}", raising=False)


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_machine(folder)
    assert caught.value.exit_code == 2
    assert caught.value.fix == "correct the environment, or .env"
    return [str(problem) for problem in caught.value.problems]


def test_everything_is_auto_by_default(tmp_path):
    assert set(read_machine(tmp_path).model_dump().values()) == {"auto"}


def test_variables_are_read(monkeypatch, tmp_path):
    monkeypatch.setenv("FALCON_JOB_DEVICE", "cpu")
    monkeypatch.setenv("FALCON_JOB_TOKENS_PER_PACK", "4096")
    monkeypatch.setenv("FALCON_JOB_WORKERS", "0")
    machine = read_machine(tmp_path)
    assert (machine.device, machine.tokens_per_pack, machine.workers) == ("cpu", 4096, 0)


def test_a_file_is_read_and_variables_outrank_it(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("FALCON_JOB_DEVICE=cpu\nFALCON_JOB_WORKERS=3\nHF_TOKEN=secret\n")
    monkeypatch.setenv("FALCON_JOB_WORKERS", "1")
    machine = read_machine(tmp_path)
    assert (machine.device, machine.workers) == ("cpu", 1)


def test_variables_of_others_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("FALCON_JOB_SQUAD", "somewhere")
    monkeypatch.setenv("DEVICE", "cuda")
    assert read_machine(tmp_path).device == "auto"


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DEVICE", "tpu", "must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
        ("DEVICE", "", "must be 'auto', 'cpu' or 'cuda', not ''"),
        ("TOKENS_PER_PACK", "0", "must be auto or a whole number of at least 1, not '0'"),
        ("TOKENS_PER_PACK", "many", "must be auto or a whole number of at least 1, not 'many'"),
        ("WORKERS", "-1", "must be auto or a whole number of at least 0, not '-1'"),
        ("WORKERS", "1.5", "must be auto or a whole number of at least 0, not '1.5'"),
        ("ATENTION", "sdpa", "is not a known variable: did you mean FALCON_JOB_ATTENTION?"),
        ("TOKENS_PACK", "8", "is not a known variable: did you mean FALCON_JOB_TOKENS_PER_PACK?"),
        ("BANANAS", "8", "is not a known variable: remove it"),
    ],
)
def test_a_bad_variable_is_named_with_what_to_do(monkeypatch, tmp_path, name, value, problem, in_file):
    if in_file:
        (tmp_path / ".env").write_text(f"FALCON_JOB_{name}={value}\n")
    else:
        monkeypatch.setenv(f"FALCON_JOB_{name}", value)
    assert refusal(tmp_path) == [f"FALCON_JOB_{name} {problem}"]


def test_all_bad_variables_are_named_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("FALCON_JOB_DEVICE", "tpu")
    monkeypatch.setenv("FALCON_JOB_WORKER", "2")
    (tmp_path / ".env").write_text("FALCON_JOB_WORKERS=-1\n")
    assert [line.split()[0] for line in refusal(tmp_path)] == [
        "FALCON_JOB_WORKER",
        "FALCON_JOB_DEVICE",
        "FALCON_JOB_WORKERS",
    ]


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError) as caught:
        read_machine(tmp_path)
    assert str(caught.value) == f"{tmp_path / '.env'} is not UTF-8: save it as UTF-8"
