"""`falcon-job evaluate`: answer the dev questions with the adapter and compute the official SQuAD 2.0 scores.

Reads build/adapter, build/dataset and build/base.json; writes build/{predictions,forced,na_prob,samples}.json,
reports/eval.json, reports/threshold.csv and reports/answerability.csv.
"""

from falcon_job.files import write_csv, write_json
from falcon_job.inference.evaluation import answerability, samples, threshold_curve
from falcon_job.inference.scoring import score_dev, write_official_files
from falcon_job.machine import Machine
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import choose_device
from falcon_job.params import Params
from falcon_job.sources.base_model import locate
from falcon_job.workspace import Workspace


def evaluate(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Answer the dev questions with the tuned model, and write answers, scores, samples and curves."""
    base_folder = locate(workspace)
    base = load_base(base_folder, params.model.precision, choose_device(machine))
    model = load_adapter(base, workspace.adapter)
    scored, numbers = score_dev(model, base_folder, params, machine, workspace)
    write_official_files(scored, workspace.build)
    write_json(workspace.build / "samples.json", samples(scored))
    write_csv(workspace.reports / "threshold.csv", ("threshold", "exact", "f1"), threshold_curve(scored))
    write_csv(workspace.reports / "answerability.csv", ("actual", "predicted"), answerability(scored))
    write_json(workspace.reports / "eval.json", numbers)
