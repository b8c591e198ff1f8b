import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from falcon_job.errors import InputError, Problem
from falcon_job.params import Group, Params, load_params, validate
from falcon_job.validation import quoted

ROOT = Path(__file__).parents[1]
GOOD = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
KEYS = [f"{group}.{key}" for group, keys in GOOD.items() for key in keys]


def changed(**values):
    """The settings of params.yaml with others, given as group__key; a value of `...` takes the key out."""
    content = copy.deepcopy(GOOD)
    for path, value in values.items():
        group, key = path.split("__")
        if value is ...:
            del content[group][key]
        else:
            content[group][key] = value
    return content


def problems(content):
    """What the error lists: of each problem the key, what is wrong with it, and the fix."""
    with pytest.raises(InputError) as caught:
        validate(content, "params.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.place == "params.yaml"
    assert len(str(caught.value).split("\n")) == 1 + len(caught.value.problems)
    return list(caught.value.problems)


def keys(content):
    return [problem.place for problem in problems(content)]


def groups(model=Params):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            yield from groups(field.annotation)


def test_params_yaml_is_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.model_dump() == GOOD


@pytest.mark.parametrize("path", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_preset_with_the_defaults_is_valid(path):
    preset = YAML(typ="safe").load(path) or {}
    content = copy.deepcopy(GOOD)
    for group, keys in preset.items():
        content[group] = {**content.get(group, {}), **keys}
    validate(content, str(path))


def test_no_key_has_a_default_in_code():
    seen = list(groups())
    assert len(seen) == 9
    assert [name for group in seen for name, field in group.model_fields.items() if not field.is_required()] == []


@pytest.mark.parametrize("key", KEYS)
def test_a_key_left_out_is_named(key):
    assert problems(changed(**{key.replace(".", "__"): ...})) == [Problem("is missing", key, "add it")]


@pytest.mark.parametrize("group", GOOD)
def test_a_group_left_out_is_named(group):
    content = {name: keys for name, keys in GOOD.items() if name != group}
    assert problems(content) == [Problem("is missing", group, "add it")]


@pytest.mark.parametrize("group", GOOD)
@pytest.mark.parametrize("value", [None, 3, "x", []])
def test_a_group_without_keys_is_named(group, value):
    assert problems({**GOOD, group: value}) == [Problem(f"must be an object with keys, not {quoted(value)}", group)]


@pytest.mark.parametrize("number", ["1e-05", "2e-4", "1E-5", "0.00002", "2.0e-4"])
def test_numbers_read_as_numbers_however_they_are_written(tmp_path, number):
    text = (ROOT / "presets" / "demo.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"(?<=learning_rate: )\S+", number, text))
    assert load_params(path).train.learning_rate == float(number)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.lerning_rate", "train.learning_rate"),
        ("preprocess.max_token", "preprocess.max_tokens"),
        ("train.max_tokens", "preprocess.max_tokens"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key, near):
    (problem,) = problems(changed(**{key.replace(".", "__"): 1}))
    assert str(problem) == f"{key} is not a known key: did you mean {near}?"


def test_an_unknown_group_is_named_with_the_nearest():
    assert [problem.fix for problem in problems({**GOOD, "trian": {}})] == ["did you mean train?"]


def test_an_unknown_key_like_no_other_is_to_be_removed():
    assert [problem.fix for problem in problems({**GOOD, "zzz": {}})] == ["remove it"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model__source", ""),
        ("model__source", 7),
        ("model__revision", "main"),
        ("model__revision", "A" * 40),
        ("model__precision", "int8"),
        ("dataset__train", None),
        ("dataset__train_sha256", "abc"),
        ("prompt__template", "squad"),
        ("preprocess__max_tokens", 31),
        ("preprocess__max_tokens", 384.5),
        ("preprocess__max_tokens", "384"),
        ("preprocess__validation_fraction", 1),
        ("preprocess__validation_fraction", -0.1),
        ("preprocess__limit", 0),
        ("preprocess__limit", True),
        ("preprocess__seed", -1),
        ("lora__r", 0),
        ("lora__alpha", 0),
        ("lora__alpha", float("inf")),
        ("lora__dropout", 1.0),
        ("lora__target_modules", []),
        ("lora__target_modules", "query_key_value"),
        ("lora__target_modules", [1]),
        ("lora__use_dora", "yes"),
        ("lora__use_dora", 1),
        ("train__epochs", 0),
        ("train__epochs", True),
        ("train__learning_rate", "fast"),
        ("train__learning_rate", 0),
        ("train__learning_rate", float("nan")),
        ("train__learning_rate", True),
        ("train__optimizer", "sgd"),
        ("train__scheduler", "step"),
        ("train__report_to", "wandb"),
        ("train__max_grad_norm", 0),
        ("train__eval_steps", 0),
        ("evaluate__max_new_tokens", 0),
        ("evaluate__extractive", None),
        ("export__verify", 0),
    ],
)
def test_a_wrong_value_is_named_and_shown(key, value):
    (problem,) = problems(changed(**{key: value}))
    assert problem.place.startswith(key.replace("__", "."))
    assert problem.problem.startswith("must ")
    shown = value[0] if problem.place.endswith(".0") else value
    assert problem.problem.endswith(f", not {quoted(shown)}")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train__epochs", 0, "train.epochs must be greater than 0, not 0"),
        ("train__epochs", "two", "train.epochs must be a whole number, not 'two'"),
        ("preprocess__max_tokens", 31, "preprocess.max_tokens must be at least 32, not 31"),
        ("lora__dropout", 1.0, "lora.dropout must be less than 1, not 1.0"),
        ("lora__target_modules", [], "lora.target_modules must not be empty, not []"),
        ("prompt__template", "squad", "prompt.template must be 'squad-v2' or 'seed', not 'squad'"),
        (
            "dataset__dev_sha256",
            "abc",
            "dataset.dev_sha256 must be the 64 hex digits that `sha256sum FILE` prints, not 'abc'",
        ),
        (
            "model__revision",
            "main",
            "model.revision must be a full commit hash (40 hex digits), not 'main': "
            "copy it from the Hub, under 'History'",
        ),
    ],
)
def test_a_problem_is_one_sentence(key, value, line):
    assert [str(problem) for problem in problems(changed(**{key: value}))] == [line]


@pytest.mark.parametrize(
    ("key", "value"), [("lora__alpha", 32), ("train__weight_decay", 0), ("train__max_grad_norm", 1)]
)
def test_a_whole_number_serves_where_any_number_does(key, value):
    validate(changed(**{key: value}), "params.yaml")


def test_a_constant_schedule_with_a_warmup_clashes():
    assert [str(problem) for problem in problems(changed(train__scheduler="constant", train__warmup_ratio=0.1))] == [
        "train.warmup_ratio is 0.1, but the scheduler constant has no warmup: set it to 0, or use constant_with_warmup"
    ]
    validate(changed(train__scheduler="constant", train__warmup_ratio=0), "params.yaml")


def test_a_revision_for_a_folder_clashes():
    (problem,) = problems(changed(model__source="data/models/tiny", model__revision="a" * 40))
    assert (problem.place, problem.fix) == ("model.revision", "set it to null for a folder")
    assert "data/models/tiny" in problem.problem
    validate(changed(model__source="tiiuae/falcon-7b", model__revision="a" * 40), "params.yaml")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_url_without_hash_clashes(split):
    url = {f"dataset__{split}": "https://example.org/x.json"}
    (problem,) = problems(changed(**url))
    assert str(problem) == f"dataset.{split}_sha256 must be set for a URL: set it to what `sha256sum FILE` prints"
    validate(changed(**url, **{f"dataset__{split}_sha256": "0" * 64}), "params.yaml")


def test_all_problems_come_in_one_message_each_with_its_path():
    named = keys(
        changed(
            model__source="a/b/c",
            model__revision="a" * 40,
            dataset__dev="https://example.org/x.json",
            lora__r=...,
            train__scheduler="constant",
            train__epochs="two",
            evaluate__limt=3,
        )
    )
    assert named == [
        "model.revision",
        "dataset.dev_sha256",
        "lora.r",
        "train.epochs",
        "train.warmup_ratio",
        "evaluate.limt",
    ]


@given(
    st.dictionaries(st.sampled_from(KEYS), st.none() | st.booleans() | st.integers() | st.text(max_size=4), min_size=1)
)
def test_any_content_is_valid_or_an_input_error(values):
    content = changed(**{key.replace(".", "__"): value for key, value in values.items()})
    try:
        params = validate(content, "params.yaml")
    except InputError:
        assert set(keys(content)) <= {*KEYS, "lora.target_modules.0"}
        return
    assert params.model_dump() == content


def test_settings_do_not_change_after_reading():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.train.epochs = 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\n", "is not valid YAML"),
        (b"train: {}\ntrain: {}\n", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
        (b"", "must hold groups of keys"),
        (b"- 1\n", "must hold groups of keys"),
        (b"text\n", "must hold groups of keys"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_the_way_to_write_one(tmp_path):
    with pytest.raises(InputError, match=r"params\.yaml is missing: write one with `falcon-job preset demo`"):
        load_params(tmp_path / "params.yaml")


def test_a_folder_in_its_place_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_params(tmp_path)


def test_reading_settings_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from falcon_job.params import load_params;"
        "load_params(Path('params.yaml'));"
        "print(sorted({'torch', 'transformers', 'datasets', 'peft', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
