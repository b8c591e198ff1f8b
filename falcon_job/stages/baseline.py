"""`falcon-job baseline`: score the untuned model with the same code as the tuned one.

Reads build/dataset and build/base.json; writes build/baseline/ and reports/baseline.json.
"""

from falcon_job.files import new_folder, write_json
from falcon_job.inference.scoring import score_dev, write_official_files
from falcon_job.machine import Machine
from falcon_job.model.loading import load_base
from falcon_job.model.precision import choose_device
from falcon_job.params import Params
from falcon_job.sources.base_model import locate
from falcon_job.workspace import Workspace


def baseline(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Answer the dev questions with the base model, without an adapter, and write answers and scores."""
    base_folder = locate(workspace)
    model = load_base(base_folder, params.model.precision, choose_device(machine))
    scored, numbers = score_dev(model, base_folder, params, machine, workspace)
    with new_folder(workspace.build / "baseline") as folder:
        write_official_files(scored, folder)
    write_json(workspace.reports / "baseline.json", numbers)
