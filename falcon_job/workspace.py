"""The paths of a clone that stages and commands share."""

import os
from dataclasses import dataclass
from pathlib import Path

from falcon_job.errors import InputError


@dataclass(frozen=True)
class Workspace:
    """The paths of one clone, whose root is the folder with its dvc.yaml."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """Return the workspace of the nearest dvc.yaml at or above `start` (default: the current directory).

        Raises:
            InputError: neither `start` nor a folder above it has a dvc.yaml.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "dvc.yaml").is_file():
                return cls(folder)
        problem = "is not inside a clone of falcon_job (no dvc.yaml here or above)"
        raise InputError(problem, place=here, fix="run this inside a clone")

    def path(self, relative: str) -> Path:
        """Return `relative` as an absolute path in the clone; a path that is already absolute is returned as it is."""
        return self.root / relative

    def is_watched(self, path: Path) -> bool:
        """Tell whether DVC tracks a path, which it does for everything in data/.

        Links are not followed, because DVC may have replaced a file of data/ by a link to its cache.
        """
        return Path(os.path.normpath(path)).is_relative_to(self.data)

    @property
    def params(self) -> Path:
        """params.yaml, the settings of the run."""
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        """Input data, tracked by data.dvc."""
        return self.root / "data"

    @property
    def raw(self) -> Path:
        """The fetched datasets, unchanged, with manifest.json."""
        return self.root / "build" / "raw"

    @property
    def base(self) -> Path:
        """base.json, which pins the base model: source, revision and the hash of each file."""
        return self.root / "build" / "base.json"

    @property
    def dataset(self) -> Path:
        """Tokenized train, validation and dev questions (Arrow)."""
        return self.root / "build" / "dataset"

    @property
    def adapter(self) -> Path:
        """The trained LoRA adapter (PEFT)."""
        return self.root / "build" / "adapter"

    @property
    def export(self) -> Path:
        """The exported bundle: adapter, tokenizer, prompt, settings, model card, checksums."""
        return self.root / "build" / "export"

    @property
    def build(self) -> Path:
        """Outputs of the stages, cached by DVC."""
        return self.root / "build"

    @property
    def reports(self) -> Path:
        """Metrics and curves, tracked by Git."""
        return self.root / "reports"

    @property
    def dist(self) -> Path:
        """Merged models, ignored by Git and DVC."""
        return self.root / "dist"

    @property
    def scratch(self) -> Path:
        """Checkpoints, locks, logs, compiled kernels and partial downloads: ignored by Git and DVC."""
        return self.root / "scratch"

    @property
    def checkpoints(self) -> Path:
        """Trainer checkpoints, one folder per fingerprint: a hash of everything that the result depends on."""
        return self.scratch / "checkpoints"

    @property
    def kernels(self) -> Path:
        """Kernels compiled by torch, kept for the next run."""
        return self.scratch / "kernels"

    @property
    def downloads(self) -> Path:
        """Downloaded datasets, complete and partial, named by their sha256."""
        return self.scratch / "downloads"
