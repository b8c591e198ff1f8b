import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from falcon_job.errors import InputError
from falcon_job.params import Group, Params, load_params, validate

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
    with pytest.raises(InputError) as caught:
        validate(content, "params.yaml")
    assert caught.value.exit_code == 2
    head, *lines = str(caught.value).split("\n")
    assert head == f"params.yaml: {len(lines)} problem{'s' * (len(lines) > 1)}"
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


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
    assert problems(changed(**{key.replace(".", "__"): ...})) == [f"{key}: missing; presets/demo.yaml shows a value"]


@pytest.mark.parametrize("group", GOOD)
def test_a_group_left_out_is_named(group):
    content = {name: keys for name, keys in GOOD.items() if name != group}
    assert problems(content) == [f"{group}: missing; presets/demo.yaml shows a value"]


@pytest.mark.parametrize("group", GOOD)
@pytest.mark.parametrize("value", [None, 3, "x", []])
def test_a_group_that_is_none_is_named(group, value):
    assert problems({**GOOD, group: value}) == [f"{group}: must be a group of keys (got {value!r})"]


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
        ("lora.rank", None),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key, near):
    (line,) = problems(changed(**{key.replace(".", "__"): 1}))
    assert line.startswith(f"{key}: unknown key")
    if near:
        assert line.endswith(f", did you mean {near}?")


def test_a_key_in_the_wrong_group_is_named_with_its_own():
    assert problems(changed(train__max_tokens=3)) == [
        "train.max_tokens: unknown key, did you mean preprocess.max_tokens?"
    ]


def test_an_unknown_group_is_named_with_the_nearest():
    assert problems({**GOOD, "trian": {}}) == ["trian: unknown key, did you mean train?"]
    assert problems({**GOOD, "zzz": {}}) == ["zzz: unknown key; remove it"]


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
    (line,) = problems(changed(**{key: value}))
    assert line.startswith(f"{key.replace('__', '.')}")
    assert "(got " in line
    assert "http" not in line


@pytest.mark.parametrize(
    ("key", "value"), [("lora__alpha", 32), ("train__weight_decay", 0), ("train__max_grad_norm", 1)]
)
def test_a_whole_number_serves_where_any_number_does(key, value):
    validate(changed(**{key: value}), "params.yaml")


def test_a_constant_schedule_with_a_warmup_clashes():
    assert problems(changed(train__scheduler="constant", train__warmup_ratio=0.1)) == [
        "train.warmup_ratio: scheduler constant has no warmup; set 0, or use constant_with_warmup (got 0.1)"
    ]
    validate(changed(train__scheduler="constant", train__warmup_ratio=0), "params.yaml")


def test_a_revision_for_a_folder_clashes():
    (line,) = problems(changed(model__source="data/models/tiny", model__revision="a" * 40))
    assert line.startswith("model.revision: is for a Hub id (owner/name); set null for a folder")
    validate(changed(model__source="tiiuae/falcon-7b", model__revision="a" * 40), "params.yaml")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_url_without_hash_clashes(split):
    url = {f"dataset__{split}": "https://example.org/x.json"}
    (line,) = problems(changed(**url))
    assert line.startswith(f"dataset.{split}_sha256: a URL needs it; `sha256sum FILE` prints it")
    validate(changed(**url, **{f"dataset__{split}_sha256": "0" * 64}), "params.yaml")


def test_all_problems_come_in_one_message_each_with_its_path():
    lines = problems(
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
    assert [line.split(":")[0] for line in lines] == [
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
        named = {line.split(":")[0] for line in problems(content)}
        assert named <= {".".join(key.split(".")[:2]) for key in KEYS} | {"lora.target_modules.0"}
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
