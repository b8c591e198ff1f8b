import re
from pathlib import Path

from falcon_job.cli import cli
from falcon_job.params import Params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", README + CONTRIBUTING, re.DOTALL))


def test_every_make_target_in_the_docs_exists_and_all_have_help():
    shown = set(re.findall(r"(?:^|`|\n)make ([a-z-]+)", CODE))
    phony = set(re.findall(r"^\.PHONY: (\S+)", MAKEFILE, re.MULTILINE))
    helped = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))

    assert {"train", "test", "data", "repro"} <= shown <= phony
    assert phony == helped


def test_every_command_in_the_docs_exists():
    shown = set(re.findall(r"(?:falcon-job|-m falcon_job) ([a-z]+)", CODE))

    assert {"run", "ask"} <= shown <= set(cli.commands)


def test_the_table_of_presets_is_complete():
    assert set(re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE)) == {
        file.stem for file in (ROOT / "presets").glob("*.yaml")
    }


def test_every_param_in_the_docs_exists():
    groups = {name: set(field.annotation.model_fields) for name, field in Params.model_fields.items()}
    for group, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", CODE):
        if group in groups and key not in ("py", "yaml", "json"):
            assert key in groups[group], f"{group}.{key}"


def test_params_yaml_is_the_demo_preset():
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets" / "demo.yaml").read_bytes()


def test_readme_and_makefile_agree_on_the_download():
    assert "3 GB" in README
    assert "3 GB" in MAKEFILE
