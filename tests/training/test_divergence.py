import json

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from falcon_job.errors import JobError
from falcon_job.machine import Machine
from falcon_job.model.adapter import add_adapter
from falcon_job.model.float8 import Float8Linear
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Packer
from falcon_job.params import load_params
from falcon_job.stages.train import train
from falcon_job.tokens.dataset import Split
from falcon_job.training.divergence import Divergence, check_divergence, diverge
from tests.tiny_models import falcon_7b_type
from tests.training.conftest import make_workspace, write_params

CPU = torch.device("cpu")


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path, falcon_7b_type(hidden_size=64, initializer_range=0.1).to(torch.bfloat16))


@pytest.fixture
def first_pack(workspace):
    split = Split(workspace.dataset / "train.arrow")
    return Packer.dense(256).make_packs([split[i].tree() for i in range(5)])[0]


def adapted(workspace, precision):
    params = load_params(workspace.params)
    return add_adapter(load_base(workspace.path("base"), precision, CPU), params.lora, seed=0)


def test_equal_predictions_do_not_diverge():
    logits = torch.randn(5, 11)

    assert diverge(logits, logits) == Divergence(0.0, 1.0)


def test_the_divergence_is_that_of_the_distributions_from_the_reference():
    ours, reference = torch.randn(2, 7, 13, generator=torch.Generator().manual_seed(0)).double()
    expected = kl_divergence(Categorical(logits=reference), Categorical(logits=ours)).mean()
    same = sum(int(a.argmax() == b.argmax()) for a, b in zip(ours, reference, strict=True)) / 7

    found = diverge(ours, reference)
    assert found.kl == pytest.approx(float(expected), rel=1e-5)
    assert found.same_choice == pytest.approx(same)


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_quantized_weights_are_compared_with_their_own_bf16(workspace, first_pack, precision):
    found = check_divergence(adapted(workspace, precision), workspace.path("base"), first_pack, precision)

    assert 1e-6 < found["kl"] < PRECISIONS["fp8"].divergence_tolerance
    assert found["same_choice"] > 0.5


def test_the_comparison_leaves_mode_and_gradients_as_they_were(workspace, first_pack):
    model = adapted(workspace, "fp8").train()
    check_divergence(model, workspace.path("base"), first_pack, "fp8")

    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_float8_weights_that_predict_otherwise_stop_the_run(workspace, first_pack):
    model = adapted(workspace, "fp8")
    broken = next(module for module in model.modules() if isinstance(module, Float8Linear))
    broken.scale *= 100

    with pytest.raises(JobError, match=r"fp8 changes the predictions .* nats .*: use model.precision bf16"):
        check_divergence(model, workspace.path("base"), first_pack, "fp8")


def test_predictions_that_are_not_finite_stop_the_run(workspace, first_pack):
    model = adapted(workspace, "fp8")
    next(module for module in model.modules() if isinstance(module, Float8Linear)).scale.fill_(float("nan"))

    with pytest.raises(JobError, match="fp8 changes the predictions"):
        check_divergence(model, workspace.path("base"), first_pack, "fp8")


@pytest.mark.parametrize(("precision", "compared"), [("fp8", True), ("nf4", True), ("bf16", False)])
def test_a_run_reports_the_divergence_of_quantized_weights(workspace, precision, compared):
    write_params(workspace, model={"precision": precision}, train={"epochs": 1})
    train(load_params(workspace.params), Machine(), workspace)
    report = json.loads((workspace.reports / "train.json").read_text(encoding="utf-8"))

    assert ("divergence" in report) == compared
    if compared:
        assert set(report["divergence"]) == {"kl", "same_choice"}
