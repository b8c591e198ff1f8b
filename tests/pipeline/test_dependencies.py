"""dvc.yaml lists what decides the result of each stage: the code it imports, the params and files it reads."""

import ast
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from falcon_job.params import Params
from falcon_job.pipeline import STAGES

ROOT = Path(__file__).parents[2]
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
IMPORTS = grimp.build_graph("falcon_job", cache_dir=None)
CANNOT_CHANGE_RESULTS = {
    "falcon_job",  # holds the version alone
    *(f"falcon_job.{name}" for name in ("errors", "machine", "params", "pipeline", "validation", "workspace")),
    *IMPORTS.find_descendants("falcon_job.reporting"),
}
"""Code that no stage lists: params are listed by key; the rest finds files, refuses input, or writes for people."""
KEYS = {f"{group}.{key}" for group, field in Params.model_fields.items() for key in field.annotation.model_fields}
HELD = {
    "build/base.json": {"model.source", "model.revision"},
    "build/dataset": {"preprocess.max_tokens"},
    "build/adapter": {key for key in KEYS if key.startswith("lora.")},
}
"""Params that a file holds: a stage that depends on the file need not list them."""

WRITES = {
    "fetch": {"build/raw", "build/base.json"},
    "preprocess": {"build/dataset", "reports/data.json"},
    "baseline": {"build/baseline", "reports/baseline.json"},
    "train": {"build/adapter", "reports/train.json", "reports/history.csv"},
    "evaluate": {
        "build/predictions.json",
        "build/forced.json",
        "build/na_prob.json",
        "build/samples.json",
        "reports/eval.json",
        "reports/threshold.csv",
        "reports/answerability.csv",
    },
    "export": {"build/export", "reports/export.json"},
}
READS = {
    "fetch": {"data"},
    "preprocess": {"build/raw", "build/base.json"},
    "baseline": {"build/dataset", "build/base.json"},
    "train": {"build/dataset", "build/base.json"},
    "evaluate": {"build/adapter", "build/dataset", "build/base.json"},
    "export": {"build/adapter", "build/dataset", "build/base.json", "reports/eval.json"},
}


def imported_modules(stage: str) -> set[str]:
    """Return the modules that a stage imports, directly or not, its own included."""
    module = f"falcon_job.stages.{stage}"
    return {module, *IMPORTS.find_upstream_modules(module)} - CANNOT_CHANGE_RESULTS


def listed_code(stage: str) -> set[str]:
    """Return the modules and packages that a stage lists, by their dotted names."""
    paths = [dependency for dependency in PIPELINE[stage]["deps"] if dependency.startswith("falcon_job/")]
    return {path.removesuffix(".py").replace("/", ".") for path in paths}


def holds(listed: str, name: str) -> bool:
    """Tell whether a dotted name is the listed one, or lies in it."""
    return f"{name}.".startswith(f"{listed}.")


def params_read(module: str) -> set[str]:
    """Return what a module reads: `train.seed` for `params.train.seed` or `train.seed`, `train` for `params.train`."""
    path = ROOT / module.replace(".", "/")
    code = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    names = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    keys = {key for key in KEYS if any(f".{name}".endswith(f".{key}") for name in names)}
    groups = {group for group in Params.model_fields if any(name.endswith(f"params.{group}") for name in names)}
    return keys | groups | (KEYS if "params.model_dump" in names else set())


def listed_params(stage: str) -> set[str]:
    """Return the keys and groups that a stage lists, and those that its dependencies hold."""
    return {*PIPELINE[stage]["params"], *(key for file in PIPELINE[stage]["deps"] for key in HELD.get(file, ()))}


def entries(stage: str, kind: str) -> dict[str, dict]:
    """Return the outs, metrics or plots of a stage as path: flags."""
    listed = PIPELINE[stage].get(kind, [])
    return {path: flags for each in listed for path, flags in (each if isinstance(each, dict) else {each: {}}).items()}


def outputs(stage: str) -> dict[str, dict]:
    return {path: flags for kind in ("outs", "metrics", "plots") for path, flags in entries(stage, kind).items()}


def test_a_stage_a_command_and_a_module_have_the_same_name():
    assert set(PIPELINE) == set(STAGES) == set(WRITES)
    for stage, described in PIPELINE.items():
        assert described["cmd"] == f"python -m falcon_job {stage}"
        assert described["desc"] == STAGES[stage].removesuffix(".")
        assert (ROOT / "falcon_job" / "stages" / f"{stage}.py").is_file()


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_all_code_that_it_imports(stage):
    missing = {each for each in imported_modules(stage) if not any(holds(code, each) for code in listed_code(stage))}
    assert not missing


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_no_code_that_it_does_not_import(stage):
    needless = {code for code in listed_code(stage) if not any(holds(code, each) for each in imported_modules(stage))}
    assert not needless


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_existing_code_once(stage):
    for code in listed_code(stage):
        assert code in IMPORTS.modules
        assert not any(holds(other, code) for other in listed_code(stage) - {code})


def test_bytecode_makes_no_stage_stale():
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_the_params_that_it_reads_and_no_others(stage):
    read = {key for module in imported_modules(stage) for key in params_read(module)}
    listed = listed_params(stage)
    assert not {key for key in read if not any(holds(each, key) or holds(key, each) for each in listed)}
    assert not {
        key for key in PIPELINE[stage]["params"] if not any(holds(key, each) or holds(each, key) for each in read)
    }


def test_every_param_belongs_to_a_stage():
    listed = {key for stage in PIPELINE.values() for key in stage["params"]}
    assert listed <= KEYS | set(Params.model_fields)
    assert not {key for key in KEYS if not any(holds(each, key) for each in listed)}


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_reads_and_writes_the_files_of_the_contract(stage):
    assert {path for path in PIPELINE[stage]["deps"] if not path.startswith("falcon_job/")} == READS[stage]
    assert set(outputs(stage)) == WRITES[stage]


def test_reports_are_in_git_and_everything_else_in_the_cache():
    for stage in PIPELINE:
        for path, flags in outputs(stage).items():
            assert flags.get("cache", True) is not path.startswith("reports/"), path
            assert not {"persist", "push", "remote"} & set(flags), path


@pytest.mark.parametrize("stage", PIPELINE)
def test_reports_are_metrics_or_plots(stage):
    """DVC keeps no old runs of a stage with other uncached outputs."""
    assert not [path for path in entries(stage, "outs") if path.startswith("reports/")]
    assert all(path.endswith(".json") for path in entries(stage, "metrics"))
    assert all(path.endswith(".csv") for path in entries(stage, "plots"))


def test_nothing_is_written_under_data():
    assert not [path for stage in PIPELINE for path in outputs(stage) if Path(path).parts[0] == "data"]


def test_plots_draw_what_stages_write():
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    drawn = {file for plot in plots for drawing in plot.values() for file in drawing["y"]}
    assert drawn <= {path for stage in PIPELINE for path in outputs(stage)}
