import re
from pathlib import Path

from falcon_job.cli import cli
from falcon_job.machine import Machine
from falcon_job.params import Params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCS = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]  # none inside the image
CODE = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", "\n".join([README, CONTRIBUTING, *DOCS]), re.DOTALL))


def test_every_make_target_shown_exists_and_every_target_has_help():
    shown = set(re.findall(r"(?:^|`|\n)make ([a-z-]+)", CODE))
    phony = set(re.findall(r"^\.PHONY: (\S+)", MAKEFILE, re.MULTILINE))
    helped = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))

    assert {"train", "test", "data", "repro"} <= shown <= phony
    assert phony == helped


def test_every_command_shown_exists():
    shown = set(re.findall(r"(?:falcon-job|-m falcon_job) ([a-z]+)", CODE))

    assert {"run", "ask"} <= shown <= set(cli.commands)


def test_the_table_of_presets_is_complete():
    (table,) = re.findall(r"^\| preset \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))

    assert named == {file.stem for file in (ROOT / "presets").glob("*.yaml")}


def test_the_table_of_variables_is_complete():
    named = set(re.findall(r"^\| `FALCON_JOB_(\w+)`", README, re.MULTILINE))

    assert named == {name.upper() for name in Machine.model_fields}


def test_every_param_named_exists():
    groups = {name: set(field.annotation.model_fields) for name, field in Params.model_fields.items()}
    for group, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", CODE):
        if group in groups and key not in ("py", "yaml", "json"):
            assert key in groups[group], f"{group}.{key}"


def test_params_yaml_is_the_demo_preset():
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets" / "demo.yaml").read_bytes()


def test_readme_and_makefile_name_the_same_download_size():
    assert "3 GB" in README
    assert "3 GB" in MAKEFILE
