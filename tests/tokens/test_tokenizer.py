import json

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from falcon_job.errors import InputError
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.tokens.tokenizer import load_tokenizer, make_encoder
from tests.made_tokenizers import KINDS, TINY_FALCON, made, saved

SEED = TEMPLATES["seed"]


def folder_with(tmp_path, special=(), **roles):
    """A tokenizer of single letters, with special tokens of which some have roles."""
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("abcdefgh")}, merges=[]))
    tokenizer.add_special_tokens(list(special))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(tmp_path)
    return tmp_path


def test_falcon_tiny_keeps_the_padding_token_it_has():
    tokenizer = load_tokenizer(TINY_FALCON)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|padding|>", "<|endoftext|>")
    encoder = make_encoder(TINY_FALCON, SEED)
    assert (encoder.pad_token_id, encoder.eos_token_id) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_every_family_load_as_they_were_saved(tmp_path, kind):
    encoder = make_encoder(saved(tmp_path, kind), SEED)
    assert encoder.pad_token_id == made(kind).pad_token_id
    text = "The harbour was dug in 1873."
    assert encoder.questions([text], closed_book=True) == [
        made(kind).encode(SEED.question_text(text, closed_book=True), add_special_tokens=False)
    ]


@pytest.mark.parametrize("padding", [{}, {"pad_token": "<end>"}], ids=["no padding token", "padding is end-of-text"])
def test_another_special_token_pads_where_end_of_text_would(tmp_path, padding):
    folder = folder_with(tmp_path, ["<first>", "<end>", "<other>"], eos_token="<end>", **padding)
    encoder = make_encoder(folder, SEED)
    tokenizer = encoder.tokenizer
    assert (encoder.eos_token_id, encoder.pad_token_id) == (9, 8)
    assert tokenizer.pad_token == "<first>"
    assert len(tokenizer) == 11  # no embedding is added


def test_padding_skips_end_of_text_as_the_first_special_token(tmp_path):
    encoder = make_encoder(folder_with(tmp_path, ["<end>", "<other>"], eos_token="<end>", pad_token="<end>"), SEED)
    assert (encoder.eos_token_id, encoder.pad_token_id) == (8, 9)


@pytest.mark.parametrize("padding", [{}, {"pad_token": "<end>"}])
def test_end_of_text_as_the_only_special_token_is_refused(tmp_path, padding):
    folder = folder_with(tmp_path, ["<end>"], eos_token="<end>", **padding)
    with pytest.raises(
        InputError, match=r"^model\.source names .*\(id 8\).*add a padding token to tokenizer_config\.json$"
    ):
        make_encoder(folder, SEED)


@pytest.mark.parametrize("special", [(), ("<other>",)], ids=["no special token", "another special token"])
def test_no_end_of_text_is_refused(tmp_path, special):
    with pytest.raises(InputError, match=r"^model\.source names a model whose tokenizer has no end-of-text"):
        make_encoder(folder_with(tmp_path, special), SEED)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} has no tokenizer that transformers can load (")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_needs_its_own_code_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard of"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    with pytest.raises(InputError):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[]"])
def test_a_damaged_tokenizer_is_refused(tmp_path, content):
    (saved(tmp_path, "gpt-2") / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="no tokenizer that transformers can load"):
        load_tokenizer(tmp_path)
