"""A tokenizer like falcon-7b's, trained on any text."""

import pytest

from tools.train_tokenizer import train_tokenizer

TEXT = ["Who founded Norholm in 1683?", "The town was founded by Noremar in 1683."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXT), 280, 64)


def test_the_tokenizer_depends_only_on_the_text(tokenizer):
    assert train_tokenizer(iter(TEXT), 280, 64).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert train_tokenizer(iter(TEXT[:1]), 280, 64).backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str()


def test_vocabulary_and_maximum_length_are_as_requested(tokenizer):
    assert len(tokenizer) == 280
    assert tokenizer.model_max_length == 64


def test_padding_is_not_the_end_of_text(tokenizer):
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|padding|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("sentence", [TEXT[0], " a\n\nb ", "na\u00efve \u65e5\u672c \U0001f600"])
def test_decoding_restores_any_text(tokenizer, sentence):
    ids = tokenizer(sentence).input_ids
    assert tokenizer.decode(ids) == sentence
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_numbers_are_split_into_three_digits_like_falcon_7b(tokenizer):
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 12345...")
    assert [piece for piece, _ in pieces] == ["in", "\u0120", "123", "45", "..."]
