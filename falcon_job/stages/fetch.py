"""Stage fetch: bring the datasets to build/raw and pin the base model in build/base.json."""

from falcon_job.machine import Machine
from falcon_job.params import Params
from falcon_job.sources.base_model import pin
from falcon_job.sources.datasets import fetch_datasets
from falcon_job.workspace import Workspace


def fetch(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Fetch the datasets and the base model that params name, and record their hashes.

    Later stages use the network only where the cache has lost files of the model.

    Raises:
        InputError: what params name is missing, refused or incomplete, or has another hash.
        JobError: the network or the disk failed.
    """
    fetch_datasets(params.dataset, workspace)
    pin(params.model, workspace).write(workspace.base)
