"""falcon-tiny, pretrained from scratch: one trained here for 20 steps, and the bundled one."""

import re
from itertools import islice

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.made_tokenizers import TINY_FALCON
from tools import pretrain_tiny as pretraining
from tools.demo.pretraining_text import documents
from tools.pretrain_tiny import Settings, main, pretrain
from tools.train_tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("falcon-tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "TOKENIZER_DOCUMENTS", 2000)
        pretrain(folder, Settings(tokens=20 * 1024, row_length=256, rows_per_step=4))
    return folder


@pytest.fixture(params=["made here", "bundled"])
def either(request, folder):
    return folder if request.param == "made here" else TINY_FALCON


def test_it_is_a_small_falcon_of_the_7b_type(either):
    model = AutoModelForCausalLM.from_pretrained(either, local_files_only=True)
    config = model.config
    assert model.dtype == torch.bfloat16
    assert config.use_cache
    assert config.multi_query
    assert config.parallel_attn
    assert not any((config.new_decoder_architecture, config.alibi, config.bias))
    assert 2e6 <= model.num_parameters() <= 4e6
    assert sum(path.stat().st_size for path in either.glob("*.safetensors")) <= 8e6


def test_tokenizer_and_model_agree_on_special_tokens(either):
    model = AutoModelForCausalLM.from_pretrained(either, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(either, local_files_only=True)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert len(tokenizer) == model.config.vocab_size


def test_the_card_shows_a_falling_loss(folder):
    card = (folder / "README.md").read_text()
    losses = [float(loss) for loss in re.findall(r"^\| [\d,]+ \| (\d+\.\d+) \|$", card, re.MULTILINE)]
    assert len(losses) > 10
    assert losses[-1] < losses[0] - 1
    assert "| row_length | 256 |" in card


def test_the_bundled_model_was_made_by_the_current_code_and_settings():
    """The tokenizer can be trained again and compared. For the weights, the card names the settings."""
    text = islice(documents(0), pretraining.TOKENIZER_DOCUMENTS)
    tokenizer = train_tokenizer(text, pretraining.VOCABULARY, pretraining.MAX_TOKENS)
    bundled = AutoTokenizer.from_pretrained(TINY_FALCON, local_files_only=True)
    assert tokenizer.backend_tokenizer.to_str() == bundled.backend_tokenizer.to_str()
    saved = AutoConfig.from_pretrained(TINY_FALCON, local_files_only=True).to_dict()
    made = pretraining.new_model(tokenizer, seed=0).config.to_dict()
    unlike = {name for name in saved if saved[name] != made.get(name)}
    assert unlike <= {"architectures", "dtype", "transformers_version", "_name_or_path"}
    card = (TINY_FALCON / "README.md").read_text()
    defaults = {option.name: option.default for option in main.params}
    for name, value in vars(Settings(tokens=defaults["tokens"], seed=defaults["seed"])).items():
        assert f"| {name} | {value} |" in card
