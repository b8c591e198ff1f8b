"""Renew the demo dataset and model in data/ and in the bundled DVC remote, dvc-store/, which lies in Git.

Run as `python -m tools.publish_demo [MODEL]`, MODEL a folder that `tools.pretrain_tiny` wrote, else the model that is
published, then commit. Git keeps every version that ever entered dvc-store/, so renew seldom. `push: false` in
data.dvc keeps every other `dvc push` out; it is lifted here for one push.
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
    """Replace data/ and the objects of dvc-store/ in the clone at `root`, and stage them in Git.

    Args:
        root: a clone.
        model: falcon-tiny's folder; None: the one that is published.

    Raises:
        SystemExit: data.dvc is somebody's own data.
    """
    if YAML(typ="safe").load(root / "data.dvc")["outs"][0].get("remote") != "bundled":
        raise SystemExit("data.dvc holds own data (no `remote: bundled`): restore it from Git first")
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
    """Write the dataset afresh into `folder`, and the model, which may lie in there, beside it."""
    with new_folder(folder) as fresh:
        write_demo_dataset(fresh)
        shutil.copytree(model, fresh / "falcon-tiny")


def allow_push(dvc_file: Path, allowed: bool) -> None:
    """Set whether `dvc push` may upload the out of a .dvc file."""
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
    """Publish, with MODEL if it is given."""
    publish_demo(ROOT, model)


if __name__ == "__main__":
    main()
