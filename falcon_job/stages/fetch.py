"""`falcon-job fetch`: copy the datasets and pin the base model by hash.

Reads data/, URLs or the Hub, as params say; writes build/raw and build/base.json.
"""

from falcon_job.machine import Machine
from falcon_job.params import Params
from falcon_job.sources.base_model import pin
from falcon_job.sources.datasets import fetch_datasets
from falcon_job.workspace import Workspace


def fetch(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Fetch the datasets and the base model, and record their hashes.

    Later stages use the network only if the Hub cache has lost files of the model since.

    Raises:
        InputError: a dataset or the model is missing, refused or incomplete, or has the wrong hash.
        JobError: the network or the disk failed.
    """
    fetch_datasets(params.dataset, workspace)
    pin(params.model, workspace).write(workspace.base)
