"""falcon-tiny is pretrained from nothing, small, and says how."""

import re

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools import pretrain_tiny as pretraining
from tools.pretrain_tiny import Settings, pretrain


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("falcon-tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "TOKENIZER_DOCUMENTS", 2000)
        pretrain(folder, Settings(tokens=20 * 1024, row_length=256, rows_per_step=4))
    return folder


def test_it_is_a_small_falcon_of_the_7b_type(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    config = model.config
    assert config.multi_query
    assert config.parallel_attn
    assert not any((config.new_decoder_architecture, config.alibi, config.bias))
    assert 2e6 <= model.num_parameters() <= 4e6
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 8e6


def test_tokenizer_and_model_agree_on_special_tokens(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert len(tokenizer) == model.config.vocab_size


def test_its_card_has_the_loss_which_falls(folder):
    card = (folder / "README.md").read_text()
    losses = [float(loss) for loss in re.findall(r"^\| [\d,]+ \| (\d+\.\d+) \|$", card, re.MULTILINE)]
    assert len(losses) > 10
    assert losses[-1] < losses[0] - 1
    assert "| row_length | 256 |" in card
