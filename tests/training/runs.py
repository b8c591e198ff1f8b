"""Run the train stage and read what it leaves."""

import csv

from falcon_job.machine import Machine
from falcon_job.params import load_params
from falcon_job.stages.train import train
from tests.training.conftest import write_params


def run(workspace, machine=None, **changes):
    write_params(workspace, **changes)
    train(load_params(workspace.params), machine or Machine(), workspace)
    return rows(workspace)


def rows(workspace):
    with (workspace.reports / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def losses(history, column="train_loss"):
    return [float(row[column]) for row in history if row[column]]


def adapter_bytes(workspace):
    return {file.name: file.read_bytes() for file in workspace.adapter.iterdir()}
