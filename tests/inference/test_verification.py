import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from falcon_job.errors import JobError
from falcon_job.inference import verification
from falcon_job.inference.bundle import PROMPT_FILE
from falcon_job.inference.verification import answer_logits, sample_passages, verify_bundle, write_merged_model
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.sources.base_model import locate
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.tokens.tokenizer import load_tokenizer
from tests.inference.finished_run import CPU, base_of, finished_run, fresh_copy, write_adapter


@pytest.fixture
def workspace(tmp_path):
    return fresh_copy(tmp_path, finished_run().workspace)


@pytest.fixture
def passages(workspace):
    return sample_passages(workspace, 6)


@pytest.fixture
def bundle(workspace):
    """A copy of the adapter with tokenizer and prompt, as an export holds them."""
    folder = workspace.root / "bundle"
    shutil.copytree(workspace.adapter, folder)
    load_tokenizer(workspace.data / "tiny").save_pretrained(folder)
    (folder / PROMPT_FILE).write_text(json.dumps(dataclasses.asdict(TEMPLATES["squad-v2"])))
    return folder


def change(path, work):
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    work(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_answer_logits_are_those_of_separate_sequences(workspace, passages):
    model = base_of(workspace)
    rows = []
    for tree in (passage.tree() for passage in passages):
        for branch in tree.branches:
            ids = [*tree.prefix_ids, *branch.prompt_ids, *branch.completion_ids]
            with torch.no_grad():
                whole = model(input_ids=torch.tensor([ids])).logits[0]
            rows.append(whole[len(ids) - len(branch.completion_ids) - 1 : -1])

    torch.testing.assert_close(answer_logits(model, passages), torch.cat(rows), rtol=1e-4, atol=1e-4)


def test_samples_are_whole_passages_of_validation(workspace, passages):
    split = Split(workspace.dataset / "validation.arrow")
    assert passages == [split[i] for i in range(len(passages))]
    assert sum(len(passage.questions) for passage in passages[:-1]) < 6


def test_samples_are_of_train_where_there_is_no_validation(workspace):
    write_split(workspace.dataset / "validation.arrow", [])
    passages = sample_passages(workspace, 2)
    assert passages == [Split(workspace.dataset / "train.arrow")[0]]


def test_a_true_copy_has_no_difference_and_the_base_comes_back_bare(workspace, passages, bundle):
    base = base_of(workspace)
    before = answer_logits(base, passages)
    assert verify_bundle(bundle, workspace.adapter, base, passages) == 0
    assert torch.equal(before, answer_logits(base, passages))
    adapted = answer_logits(load_adapter(base, workspace.adapter), passages)
    assert not torch.equal(before, adapted), "the adapter says something else than the base"


@pytest.mark.parametrize(
    "work",
    [
        lambda tensors: next(t for n, t in tensors.items() if "lora_B" in n).view(-1)[0].add_(0.01),
        lambda tensors: next(t for n, t in tensors.items() if "lora_A" in n).zero_(),
        lambda tensors: next(t for n, t in tensors.items() if "lora_B" in n).fill_(float("nan")),
    ],
    ids=["one weight", "zeros", "nan"],
)
def test_other_weights_are_found(workspace, passages, bundle, work):
    change(bundle / "adapter_model.safetensors", work)
    with pytest.raises(JobError, match="exported adapter's logits differ") as caught:
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda tensors: tensors.pop(sorted(tensors)[0]),
        lambda tensors: tensors.update({"base_model.model.other.lora_A.weight": torch.zeros(2, 2)}),
    ],
    ids=["one missing", "one too many"],
)
def test_missing_and_foreign_weights_are_found(workspace, passages, bundle, work):
    change(bundle / "adapter_model.safetensors", work)
    with pytest.raises(JobError, match=r"exported adapter cannot be loaded.*mismatched weights: 1"):
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)


@pytest.mark.parametrize("size", [0, 7, 500])
def test_a_file_cut_short_is_found(workspace, passages, bundle, size):
    path = bundle / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(JobError, match="exported adapter cannot be loaded") as caught:
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)
    assert caught.value.exit_code == 1


def test_another_scale_in_the_copied_configuration_is_found(workspace, passages, bundle):
    path = bundle / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    with pytest.raises(JobError, match="logits differ"):
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)


def test_another_prompt_is_found(workspace, passages, bundle):
    (bundle / PROMPT_FILE).write_text(json.dumps(dataclasses.asdict(TEMPLATES["seed"])))
    with pytest.raises(JobError, match=f"other tokens than preprocess for question {passages[0].questions[0].id!r}"):
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)


def test_another_tokenizer_is_found(workspace, passages, bundle):
    content = json.loads((bundle / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:10]
    (bundle / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(JobError, match="tokenizer and prompt give other tokens"):
        verify_bundle(bundle, workspace.adapter, base_of(workspace), passages)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.5)])
def test_a_merged_model_loads_alone_and_equals_base_and_adapter(workspace, passages, precision, tolerance):
    target = workspace.dist / "merged"
    drift = write_merged_model(locate(workspace), workspace.adapter, target, precision, passages, CPU)
    assert drift < PRECISIONS[precision].merge_drift
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    merged = AutoModelForCausalLM.from_pretrained(target).eval()
    assert merged.dtype == dtype
    adapted = answer_logits(load_adapter(base_of(workspace, precision), workspace.adapter), passages)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    for a, b in zip(answer_logits(merged, passages), adapted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    assert AutoTokenizer.from_pretrained(target).decode(passages[0].prefix_ids).startswith("Passage:")
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o644}


def test_a_merged_model_stops_by_itself_and_takes_over_no_sampling(workspace, passages):
    settings = {"do_sample": False, "temperature": 9.0, "repetition_penalty": 9.0, "eos_token_id": 5}
    (workspace.data / "tiny" / "generation_config.json").write_text(json.dumps(settings))
    target = workspace.dist / "merged"
    write_merged_model(workspace.data / "tiny", workspace.adapter, target, "fp32", passages, CPU)
    tokenizer, merged = AutoTokenizer.from_pretrained(target), AutoModelForCausalLM.from_pretrained(target)
    assert merged.generation_config.eos_token_id == tokenizer.eos_token_id
    assert merged.generation_config.repetition_penalty in (None, 1.0)
    passage = Split(workspace.dataset / "dev.arrow")[0]
    output = merged.generate(torch.tensor([[*passage.prefix_ids, *passage.questions[0].prompt_ids]]), max_new_tokens=50)
    assert output[0, -1] == tokenizer.eos_token_id


def test_a_4_bit_run_merges_onto_16_bit_weights(workspace, passages):
    target = workspace.dist / "merged"
    drift = write_merged_model(locate(workspace), workspace.adapter, target, "nf4", passages, CPU)
    assert 0 < drift <= PRECISIONS["nf4"].merge_drift, "the quantization is part of it"
    merged = load_base(target, "bf16", CPU)
    expected = load_adapter(base_of(workspace, "bf16"), workspace.adapter)
    for a, b in zip(answer_logits(merged, passages), answer_logits(expected, passages), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.5)


@pytest.mark.parametrize("value", [5.0, float("nan")])
def test_a_broken_merge_is_refused_and_leaves_nothing(workspace, passages, monkeypatch, value):
    write_adapter(workspace, finished_run().params)
    honest = verification.load_adapter

    def load_and_break(model, folder):
        adapted = honest(model, folder)
        merging = adapted.merge_and_unload

        def merge_wrongly():
            merged = merging()
            merged.transformer.h[0].self_attention.query_key_value.weight.data.mul_(value)
            return merged

        adapted.merge_and_unload = merge_wrongly
        return adapted

    monkeypatch.setattr(verification, "load_adapter", load_and_break)
    with pytest.raises(JobError, match=r"answers differently.* change by .* set export.merge to false") as caught:
        write_merged_model(locate(workspace), workspace.adapter, workspace.dist / "merged", "fp32", passages, CPU)
    assert caught.value.exit_code == 1
    assert list(workspace.dist.iterdir()) == []
