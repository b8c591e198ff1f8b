import subprocess
import sys

import pytest
import torch
from transformers import Trainer, TrainingArguments

from falcon_job.packing import Branch, PrefixTreeCollator, Tree
from tests.tiny_models import falcon_7b_type, with_lora

ITEM = {
    "prefix_ids": [5, 6, 7],
    "branches": [{"prompt_ids": [8], "answer_ids": [9, 1]}, {"prompt_ids": [2, 3], "answer_ids": [4]}],
}


def test_mappings_and_trees_give_the_same_batch():
    tree = Tree([5, 6, 7], (Branch([8], [9, 1]), Branch([2, 3], [4])))
    from_mapping, from_tree = PrefixTreeCollator()([ITEM]), PrefixTreeCollator()([tree])

    assert from_mapping.keys() == {"input_ids", "position_ids", "attention_mask", "labels"}
    assert all(torch.equal(from_mapping[name], from_tree[name]) for name in from_mapping)


def test_the_models_own_loss_is_the_mean_over_the_answer_tokens_of_separate_sequences():
    model = falcon_7b_type().double().eval()
    batch = PrefixTreeCollator()([ITEM, ITEM])
    with torch.no_grad():
        packed = model(**batch).loss
        losses = []
        for branch in ITEM["branches"] * 2:
            row = torch.tensor([[*ITEM["prefix_ids"], *branch["prompt_ids"], *branch["answer_ids"]]])
            labels = row.clone()
            labels[0, : len(ITEM["prefix_ids"]) + len(branch["prompt_ids"])] = -100
            losses += [model(input_ids=row, labels=labels).loss.double()] * len(branch["answer_ids"])

    # the model takes its own loss in float32
    assert packed.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


def test_a_plain_trainer_trains_on_it(tmp_path):
    model = with_lora(falcon_7b_type())
    before = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        learning_rate=0.1,
        per_device_train_batch_size=2,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=[ITEM] * 4, data_collator=PrefixTreeCollator()).train()

    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters() if p.requires_grad)


def test_packing_needs_no_transformers():
    code = "import sys, falcon_job.packing; print(sorted({'transformers', 'peft', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
