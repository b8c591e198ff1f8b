import doctest
import subprocess
import sys

import pytest
import torch

from falcon_job import packing
from falcon_job.packing import Branch, PrefixTreeCollator, Tree, collator
from tests.tiny_models import falcon_7b_type

ITEM = {
    "prefix_ids": [5, 6, 7],
    "branches": [{"prompt_ids": [8], "completion_ids": [9, 1]}, {"prompt_ids": [2, 3], "completion_ids": [4]}],
}


def test_mappings_and_trees_give_the_same_batch():
    tree = Tree([5, 6, 7], (Branch([8], [9, 1]), Branch([2, 3], [4])))
    from_mapping, from_tree = PrefixTreeCollator()([ITEM]), PrefixTreeCollator()([tree])

    assert from_mapping.keys() == {"input_ids", "position_ids", "attention_mask", "labels"}
    assert all(torch.equal(from_mapping[name], from_tree[name]) for name in from_mapping)


def test_the_model_s_own_loss_equals_that_of_separate_sequences():
    model = falcon_7b_type().double().eval()
    batch = PrefixTreeCollator()([ITEM, ITEM])
    with torch.no_grad():
        packed = model(**batch).loss
        losses = []
        for branch in ITEM["branches"] * 2:
            row = torch.tensor([[*ITEM["prefix_ids"], *branch["prompt_ids"], *branch["completion_ids"]]])
            labels = row.clone()
            labels[0, : len(ITEM["prefix_ids"]) + len(branch["prompt_ids"])] = -100
            losses += [model(input_ids=row, labels=labels).loss.double()] * len(branch["completion_ids"])

    # the model takes its own loss in float32
    assert packed.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


@pytest.mark.parametrize("module", [packing, collator], ids=["the picture", "a plain Trainer"])
def test_the_examples_in_the_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0


def test_packing_needs_no_transformers():
    code = "import sys, falcon_job.packing; print(sorted({'transformers', 'peft', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
