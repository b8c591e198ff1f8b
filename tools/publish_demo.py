"""Replace the demo's dataset and model in data/ and in dvc-store/, the bundled DVC remote that is kept in Git.

    python -m tools.publish_demo [MODEL]

MODEL is a folder that `tools.pretrain_tiny` wrote; without it the published model stays. Commit afterwards. Git keeps
every version that was ever committed to dvc-store/, so do this rarely. `push: false` in data.dvc blocks every other
`dvc push`; this tool lifts it for one push.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import click
from ruamel.yaml import YAML

from falcon_job.files import new_folder
from tools.demo.dataset import write_demo_dataset

ROOT = Path(__file__).resolve().parent.parent


def publish_demo(root: Path, model: Path | None = None) -> None:
    """Replace data/ and the contents of dvc-store/ in the clone at `root`, and stage them in Git.

    Args:
        root: a clone.
        model: falcon-tiny's folder; None keeps the published one.

    Raises:
        SystemExit: data.dvc tracks the user's own data.
    """
    if YAML(typ="safe").load(root / "data.dvc")["outs"][0].get("remote") != "bundled":
        raise SystemExit(
            "data.dvc tracks your own data (it has no `remote: bundled`): run `git checkout data.dvc` first"
        )
    if model is None:
        dvc(root, "pull", "data.dvc")
    generate(root / "data", model or root / "data" / "falcon-tiny")
    dvc(root, "add", "data")
    shutil.rmtree(root / "dvc-store" / "files", ignore_errors=True)
    allow_push(root / "data.dvc", True)
    try:
        dvc(root, "push", "data.dvc")
    finally:
        allow_push(root / "data.dvc", False)
    subprocess.run(["git", "add", "--force", "--all", "dvc-store", "data.dvc"], cwd=root, check=True)


def generate(folder: Path, model: Path) -> None:
    """Write a new dataset to `folder` with a copy of the model, which may be inside `folder` now."""
    with new_folder(folder) as fresh:
        write_demo_dataset(fresh)
        shutil.copytree(model, fresh / "falcon-tiny")


def allow_push(dvc_file: Path, allowed: bool) -> None:
    """Set whether `dvc push` may upload what a .dvc file tracks."""
    yaml = YAML()
    content = yaml.load(dvc_file)
    content["outs"][0]["push"] = allowed
    yaml.dump(content, dvc_file)


def dvc(root: Path, *arguments: str) -> None:
    """Run DVC in the clone at `root`."""
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True)


@click.command(help=__doc__)
@click.argument("model", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(model: Path | None) -> None:
    """Publish the demo, with MODEL if it is given."""
    publish_demo(ROOT, model)


if __name__ == "__main__":
    main()
