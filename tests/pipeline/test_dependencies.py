"""dvc.yaml says of each stage what decides its result: the code it reaches, the params it reads, the files it makes."""

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from falcon_job.params import Params
from falcon_job.pipeline import STAGES

ROOT = Path(__file__).parents[2]
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
HARMLESS = re.compile(
    r"falcon_job/((__init__|__main__|cli|params|machine|workspace|errors|validation|pipeline)\.py|(reporting|commands)/.*)"
)
"""Code that cannot change a result: params are tracked by key, the rest only finds, prints or refuses."""
GROUPS = {field.annotation.__name__: name for name, field in Params.model_fields.items()}
KEYS = {name: set(field.annotation.model_fields) for name, field in Params.model_fields.items()}
REACHES_THROUGH = {("train", "preprocess.max_tokens"): "build/dataset"}
"""Params that a stage reads and need not list, since they come with a dependency that they change."""

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


def closure(start: str, root: Path) -> set[str]:
    """Return the files of the package that a file reaches by imports, its own included."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file in reached or HARMLESS.fullmatch(file):
            continue
        reached.add(file)
        waiting += imported_files(root / file, root)
    return {file for file in reached if not only_docstring(root / file)}


def imported_files(path: Path, root: Path) -> list[str]:
    """Return the package's files that a file imports, wherever in it, with the __init__.py of their folders."""
    package = path.relative_to(root).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    files = set()
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            stem = "/".join(parts[:end])
            files |= {file for file in (f"{stem}.py", f"{stem}/__init__.py") if (root / file).is_file()}
    return sorted(files)


def only_docstring(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return path.name == "__init__.py" and all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body
    )


def params_read(start: str, files: set[str], root: Path) -> set[str]:
    """Return the keys (`group.key`), or whole groups, that a function reads, as `params.group.key` or from an argument.

    All functions and classes of `files` whose name it mentions are read too, and so on. A group that is handed on is
    followed by the annotation of the argument that takes it (`TrainParams`), or by the name that it is assigned to.
    What is looked up by a computed name, or dumped, counts as all of the group.
    """
    defined: dict[str, list[ast.AST]] = {}
    for file in files:
        for node in ast.parse((root / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.setdefault(node.name, []).append(node)
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in defined and name not in reached:
            reached.add(name)
            for node in (node for definition in defined[name] for node in ast.walk(definition)):
                waiting += [node.id] if isinstance(node, ast.Name) else []
                waiting += [node.attr] if isinstance(node, ast.Attribute) else []
    nodes = [node for name in reached for definition in defined[name] for node in ast.walk(definition)]
    return {key for node in nodes if isinstance(node, ast.FunctionDef) for key in _read_in(node)}


def _read_in(scope: ast.FunctionDef) -> set[str]:
    arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
    groups = {}
    for argument in arguments:
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        for name, group in GROUPS.items():
            if re.search(rf"\b{name}\b", annotation):
                groups[argument.arg] = group
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and (group := _group(node.value, groups)):
            groups.update({target.id: group for target in node.targets if isinstance(target, ast.Name)})
    read = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.Attribute) and (group := _group(node.value, groups)):
            read.add(f"{group}.{node.attr}" if node.attr in KEYS[group] else group)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "asdict", "vars"):
            read |= {group for argument in node.args[:1] if (group := _group(argument, groups))}
        if isinstance(node, ast.Attribute) and _is_params(node.value) and node.attr not in KEYS:
            read |= set(KEYS)
    return read


def _group(node: ast.expr, groups: dict[str, str]) -> str | None:
    """Return the group that an expression is: `params.train`, or a name known to hold it."""
    if isinstance(node, ast.Name):
        return groups.get(node.id)
    return node.attr if isinstance(node, ast.Attribute) and _is_params(node.value) and node.attr in KEYS else None


def _is_params(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[-1] == "params" and ast.unparse(node) != "workspace.params"


def covered(key: str, listed: set[str]) -> bool:
    """Tell whether a key, or a whole group, is listed."""
    group, _, name = key.partition(".")
    return group in listed or key in listed or (not name and {f"{group}.{each}" for each in KEYS[group]} <= listed)


def listed(stage: str, kind: str) -> dict[str, dict]:
    """Return a stage's outs, metrics or plots as path: flags."""
    entries = PIPELINE[stage].get(kind, [])
    return {path: flags for each in entries for path, flags in (each if isinstance(each, dict) else {each: {}}).items()}


def made(stage: str) -> dict[str, dict]:
    return {path: flags for kind in ("outs", "metrics", "plots") for path, flags in listed(stage, kind).items()}


def test_stages_commands_and_modules_have_the_same_names():
    assert set(PIPELINE) == set(STAGES) == set(WRITES)
    for stage, described in PIPELINE.items():
        assert described["cmd"] == f"python -m falcon_job {stage}"
        assert (ROOT / "falcon_job" / "stages" / f"{stage}.py").is_file()


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_the_modules_that_decide_its_result_and_no_others(stage):
    modules = [dependency for dependency in PIPELINE[stage]["deps"] if dependency.startswith("falcon_job/")]
    assert len(modules) == len(set(modules))
    assert set(modules) == closure(f"falcon_job/stages/{stage}.py", ROOT)


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_the_params_that_its_code_reads(stage):
    known = set(PIPELINE[stage]["params"])
    read = params_read(stage, closure(f"falcon_job/stages/{stage}.py", ROOT), ROOT)
    missing = {key for key in read if not covered(key, known)}
    assert missing == {key for reader, key in REACHES_THROUGH if reader == stage}


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_no_params_that_its_code_does_not_read(stage):
    read = params_read(stage, closure(f"falcon_job/stages/{stage}.py", ROOT), ROOT)
    touched = read | {key.partition(".")[0] for key in read}
    assert [key for key in PIPELINE[stage]["params"] if key not in touched and key.partition(".")[0] not in read] == []


def test_every_key_of_params_yaml_belongs_to_a_stage():
    known = {key for stage in PIPELINE.values() for key in stage["params"]}
    keys = [f"{group}.{key}" for group, names in KEYS.items() for key in names]
    assert [key for key in keys if not covered(key, known)] == []


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_reads_and_writes_the_files_of_the_contract(stage):
    dependencies = {dependency for dependency in PIPELINE[stage]["deps"] if not dependency.startswith("falcon_job/")}
    assert dependencies == READS[stage]
    assert set(made(stage)) == WRITES[stage]


def test_reports_are_in_git_and_everything_else_in_the_cache():
    for stage in PIPELINE:
        for path, flags in made(stage).items():
            assert flags.get("cache", True) is not path.startswith("reports/"), path
            assert not {"persist", "push", "remote"} & set(flags), path


@pytest.mark.parametrize("stage", PIPELINE)
def test_reports_are_metrics_or_plots_since_dvc_keeps_no_old_runs_of_a_stage_with_other_uncached_outs(stage):
    assert not [path for path in listed(stage, "outs") if path.startswith("reports/")]
    assert all(path.endswith(".json") for path in listed(stage, "metrics"))
    assert all(path.endswith(".csv") for path in listed(stage, "plots"))


def test_nothing_is_written_under_data():
    assert not [path for stage in PIPELINE for path in made(stage) if Path(path).parts[0] == "data"]


def test_plots_draw_what_stages_write():
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    drawn = {file for plot in plots for drawing in plot.values() for file in drawing["y"]}
    assert drawn <= {path for stage in PIPELINE for path in made(stage)}


def test_the_closure_finds_imports_of_every_kind(tmp_path):
    files = {
        "falcon_job/__init__.py": "VERSION = 1",
        "falcon_job/stages/__init__.py": '"""Doc."""',
        "falcon_job/stages/a.py": "from falcon_job.b import thing\nfrom falcon_job import h\n"
        "def late():\n    import falcon_job.deep.c\n    from . import e\n    from ..g import x\n",
        "falcon_job/stages/e.py": "",
        "falcon_job/b.py": "from falcon_job.errors import X\nif True:\n    from falcon_job.deep import d\n",
        "falcon_job/deep/__init__.py": "import os",
        "falcon_job/deep/c.py": "",
        "falcon_job/deep/d.py": "from falcon_job.reporting import table",
        "falcon_job/errors.py": "from falcon_job import unseen",
        "falcon_job/reporting/__init__.py": "X = 1",
        "falcon_job/reporting/table.py": "",
        "falcon_job/g.py": "",
        "falcon_job/h.py": "",
        "falcon_job/unseen.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert closure("falcon_job/stages/a.py", tmp_path) == {
        "falcon_job/stages/a.py",
        "falcon_job/stages/e.py",
        "falcon_job/b.py",
        "falcon_job/deep/__init__.py",
        "falcon_job/deep/c.py",
        "falcon_job/deep/d.py",
        "falcon_job/g.py",
        "falcon_job/h.py",
    }


@pytest.mark.parametrize(
    ("code", "read"),
    [
        ("def f(params): return params.train.seed", {"train.seed"}),
        ("def f(self): return self.package.params.lora.r", {"lora.r"}),
        ("def f(params):\n    chosen = params.train\n    return chosen.epochs", {"train.epochs"}),
        ("def f(lora: LoraParams): return lora.alpha", {"lora.alpha"}),
        ("def f(lora: 'LoraParams | None'): return lora.alpha", {"lora.alpha"}),
        ("def f(lora: LoraParams): return lora.model_dump()", {"lora"}),
        ("def f(dataset: DatasetParams, key): return getattr(dataset, key)", {"dataset"}),
        ("def f(params, key): return getattr(params.dataset, key)", {"dataset"}),
        ("def f(params): return params.model_dump()", set(KEYS)),
        ("def f(workspace): return workspace.params.read_text()", set()),
        ("def f(params): g(params)\ndef g(params): return params.train.seed", {"train.seed"}),
        ("def f(params): G(params).h()\nclass G:\n  def h(self): return self.params.train.seed", {"train.seed"}),
        ("def f(params): return 1\ndef g(params): return params.train.seed", set()),
        ("def f(model, trainer): return model.seed, trainer.params", set()),
    ],
)
def test_the_params_that_code_reads_are_found(tmp_path, code, read):
    (tmp_path / "code.py").write_text(code)
    assert params_read("f", {"code.py"}, tmp_path) == read
