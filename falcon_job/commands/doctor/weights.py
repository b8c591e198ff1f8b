"""The base model's weights: here, or still to come. No network is used."""

import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, problem, readable
from falcon_job.errors import InputError
from falcon_job.params import ModelParams
from falcon_job.sources.base_model import check_whole
from falcon_job.workspace import Workspace

BYTES_PER_PARAMETER = 2
UNITS = {"m": 1e6, "b": 1e9}


def check_weights(here: Surroundings) -> Finding:
    """Check that the model of params.yaml is here, whole, or can be downloaded."""
    if here.workspace is None or here.params is None:
        return note("not looked for, as there is no good params.yaml", "see params")
    model = here.params.model
    try:
        folder = _find(model, here.workspace)
    except InputError as error:
        return _missing_download(model) if model.revision else _missing_folder(error, model.source, here.workspace)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return ok(f"{model.source}, {readable(size)} in {folder}")


def is_to_download(here: Surroundings) -> bool:
    """Tell whether weights are still to be downloaded."""
    if here.workspace is None or here.params is None or here.params.model.revision is None:
        return False
    try:
        _find(here.params.model, here.workspace)
    except InputError:
        return True
    return False


def bytes_to_download(here: Surroundings) -> float:
    """Return about how much is still to be downloaded; 0 for nothing, and where that cannot be guessed."""
    return guess_size(here.params.model.source) if here.params and is_to_download(here) else 0


def guess_size(source: str) -> float:
    """Return the bytes of a model whose name tells its parameters, held in 16 bits each; 0 where it does not."""
    named = re.search(r"(\d+(?:\.\d+)?)([mb])(?![a-z])", source.lower())
    return float(named[1]) * UNITS[named[2]] * BYTES_PER_PARAMETER if named else 0


def _find(model: ModelParams, workspace: Workspace) -> Path:
    """Return the folder of a model that is whole.

    Raises:
        InputError: it is not there, or not whole.
    """
    folder = workspace.path(model.source) if model.revision is None else _snapshot(model.source, model.revision)
    if not folder.is_dir():
        raise InputError(f"model.source: there is no folder {folder}")
    check_whole(folder, {path.name for path in folder.iterdir() if path.is_file()}, model.source)
    return folder


def _snapshot(source: str, revision: str) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise InputError(f"{source} is not in the cache") from error


def _missing_folder(error: InputError, source: str, workspace: Workspace) -> Finding:
    unpacked = workspace.data.exists() or not workspace.path("data.dvc").is_file()
    if not unpacked and workspace.path(source).is_relative_to(workspace.data):
        return note("data/ is not unpacked yet", "`falcon-job run` unpacks it first")
    return problem(str(error), "copy the model there, or correct model.source in params.yaml")


def _missing_download(model: ModelParams) -> Finding:
    found = f"{model.source} is not whole in {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return problem(
            f"{found}, and HF_HUB_OFFLINE is set",
            "unset it, or copy the cache of a machine that has the model and name it in HF_HOME",
        )
    size = guess_size(model.source)
    about = f"about {readable(size)}" if size else "about 2 GB for a billion parameters"
    return note(f"{found}: the first run downloads it, {about}", "have a network then, or `falcon-job fetch` now")
