"""What DVC watches, and what only a sha256 can hold still."""

import os
from pathlib import Path

from falcon_job.workspace import Workspace


def is_watched(path: Path, workspace: Workspace) -> bool:
    """Tell whether a path lies in data/, by name: DVC may have linked it there from its cache."""
    return Path(os.path.normpath(path)).is_relative_to(workspace.data)
