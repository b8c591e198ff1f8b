from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.demo.dataset import write_demo_dataset
from tools.make_tiny_falcon import make_tiny_falcon


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder)
    return folder / "train.json"


@pytest.fixture(scope="module")
def folder(text) -> Path:
    folder = text.parent / "falcon-tiny"
    make_tiny_falcon(folder, text)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_every_run_writes_the_same_bytes_and_leaves_torchs_random_state(folder, text, tmp_path):
    state = torch.random.get_rng_state()
    make_tiny_falcon(tmp_path / "again", text)
    assert torch.equal(torch.random.get_rng_state(), state)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_the_folder_is_at_most_a_megabyte(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000


def test_it_has_the_architecture_of_falcon_7b(model):
    config = model.config
    assert config.model_type == "falcon"
    assert config.multi_query
    assert config.parallel_attn
    assert not any((config.new_decoder_architecture, config.alibi, config.bias))
    head = config.hidden_size // config.num_attention_heads
    projection = model.transformer.h[0].self_attention.query_key_value
    assert projection.out_features == config.hidden_size + 2 * head, "one key and value head for all"
    assert model.dtype == torch.bfloat16


def test_special_tokens_agree_between_tokenizer_model_and_generation(model, tokenizer):
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|padding|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("sentence", ["Who founded Norholm in 1683?", " a\n\nb ", "na\u00efve \u65e5\u672c \U0001f600"])
def test_any_text_survives_the_tokenizer(tokenizer, sentence):
    ids = tokenizer(sentence).input_ids
    assert tokenizer.decode(ids) == sentence
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_numbers_are_split_after_three_digits_as_by_falcon_7b(tokenizer):
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 12345...")
    assert [piece for piece, _ in pieces] == ["in", "\u0120", "123", "45", "..."]


def test_its_loss_is_finite(model, tokenizer):
    batch = tokenizer("Who founded Norholm in 1683?", return_tensors="pt")
    assert torch.isfinite(model(**batch, labels=batch["input_ids"]).loss)


def test_lora_lowers_its_loss(model, tokenizer):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    batch = tokenizer("The town was founded by Noremar in 1683.", return_tensors="pt")
    tuned = get_peft_model(model.float(), LoraConfig(r=8, target_modules=["query_key_value"]))
    optimizer = torch.optim.AdamW([w for w in tuned.parameters() if w.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = tuned(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
