"""The loss and the scores of packs, against separate sequences in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.packing import (
    Branch,
    Packer,
    Tree,
    branch_log_probabilities,
    completion_loss,
    pack_logits,
    token_log_probabilities,
)
from tests.packing.strategies import TREES
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type

MODELS = [build().double().eval() for build in (falcon_7b_type, falcon_40b_type, llama_type)]


@torch.no_grad()
def separate(model, tree, branch):
    """The oracle: the log-probability of each completion token, in a row of its own that the model masks by itself."""
    ids = [*tree.prefix_ids, *branch.prompt_ids, *branch.completion_ids]
    log_probabilities = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    start = len(ids) - len(branch.completion_ids)
    return [log_probabilities[i - 1, ids[i]].item() for i in range(start, len(ids))]


@pytest.mark.parametrize("model", MODELS, ids=["falcon_7b", "falcon_40b", "llama"])
@settings(max_examples=25)
@given(trees=st.lists(TREES, min_size=1, max_size=4))
def test_scores_equal_those_of_separate_sequences(model, trees):
    pack = Packer.dense(1024).make_pack(trees)
    expected = [separate(model, tree, branch) for tree in trees for branch in tree.branches]
    tolerance = {"rel": 1e-5, "abs": 1e-6}  # RMSNorm computes in float32

    with torch.no_grad():
        logits = pack_logits(model, pack)
        tokens, branches = token_log_probabilities(logits, pack), branch_log_probabilities(logits, pack)
        loss = completion_loss(model, pack)
    assert tokens.tolist() == pytest.approx([each for row in expected for each in row], **tolerance)
    assert branches.tolist() == pytest.approx([sum(row) for row in expected], **tolerance)
    assert loss.item() == pytest.approx(-sum(map(sum, expected)), **tolerance)


def test_scores_come_in_the_order_of_the_keys():
    model = MODELS[0]
    tree = Tree([5, 6], (Branch([9], [1], "later"), Branch([2], [3, 4], "first")))
    pack = Packer.dense(64).make_pack([tree])

    with torch.no_grad():
        log_probabilities = branch_log_probabilities(pack_logits(model, pack), pack).tolist()
    scores = dict(zip(pack.keys, log_probabilities, strict=True))
    assert scores == {branch.key: pytest.approx(sum(separate(model, tree, branch))) for branch in tree.branches}


def test_bf16_models_are_scored_in_float32():
    model = falcon_7b_type().to(torch.bfloat16)
    pack = Packer.dense(64).make_pack([Tree([5], (Branch([9], [1]),))])

    assert token_log_probabilities(pack_logits(model, pack), pack).dtype == torch.float32
    assert completion_loss(model, pack).dtype == torch.float32
