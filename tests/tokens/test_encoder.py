"""Pieces of a prompt, tokenized apart, are the tokens of the whole; end-of-text is learned."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.tokens.encoder import PromptEncoder
from tests.made_tokenizers import KINDS, made

each_kind = pytest.mark.parametrize("kind", KINDS)
each_template = pytest.mark.parametrize("name", TEMPLATES)

BORDERS = (
    *("", ".", "?", "!", "...", '"', "'", "''s", ")", "(", "<", ">", ":", "-", "\u2026", "$5.", "100%", "1", "1234"),
    *("'s", "don't", "\u00e9", "e\u0301", "\u65e5\u672c", "\u3002", "\u0413", "\u263a\ufe0f", "\U0001f600", "\u200b"),
    *(
        "\n",
        "\r\n",
        "\n\nb",
        " ",
        "  ",
        "\t",
        "\u00a0",
        "\u2028",
        "\u3000",
        "</s>",
        "<s>",
        "a b",
        "Answer:",
        "\nQuestion:",
    ),
)
borders = st.sampled_from(BORDERS) | st.text(max_size=3)
texts = st.builds("{}{}{}".format, borders, st.sampled_from(["word", "two words", "a\nb", "1873"]), borders) | st.text(
    min_size=1, max_size=8
).filter(str.strip)


def encoder(kind: str, name: str) -> PromptEncoder:
    tokenizer = made(kind)
    return PromptEncoder(tokenizer, TEMPLATES[name], tokenizer.pad_token_id)


def pieces(encoder: PromptEncoder, context: str | None, question: str, answer: str | None) -> list[int]:
    (asked,) = encoder.questions([question], closed_book=context is None)
    return [*encoder.shared([context])[0], *asked, *encoder.answers([answer])[0]]


def whole(kind: str, name: str, context: str | None, question: str, answer: str | None) -> list[int]:
    """One call of the tokenizer on the whole text, start token and all, and end-of-text."""
    tokenizer, template = made(kind), TEMPLATES[name]
    asked = template.question_text(question, closed_book=context is None)
    text = template.shared_text(context) + asked + template.answer_text(answer)
    return [*tokenizer(text, split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]


@each_kind
@each_template
@given(context=st.none() | texts, question=texts, answer=st.none() | texts)
@example(context="He left.", question="Why?", answer="\u2026")
@example(context="In 1873", question="1873?", answer="1873")
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_pieces_are_the_tokens_of_the_whole(kind, name, context, question, answer):
    assert pieces(encoder(kind, name), context, question, answer) == whole(kind, name, context, question, answer)
    assert encoder(kind, name).adds_up(context, question, answer)


@each_kind
@each_template
def test_pieces_of_real_text_are_the_tokens_of_the_whole(kind, name):
    folder = os.environ.get("FALCON_JOB_SQUAD")
    if not folder:
        pytest.skip("FALCON_JOB_SQUAD names no folder with SQuAD's train.json and dev.json")
    articles = json.loads((Path(folder) / "dev.json").read_text(encoding="utf-8"))["data"]
    encode, tried = encoder(kind, name), 0
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        for asked in paragraph["qas"][:2]:
            answer = asked["answers"][0]["text"] if asked["answers"] else None
            record = (paragraph["context"], asked["question"], answer)
            assert pieces(encode, *record) == whole(kind, name, *record), asked["id"]
            tried += 1
    assert tried > 200


def test_a_tokenizer_that_merges_across_the_border_is_found():
    encode = encoder("merging", "squad-v2")
    context, question, answer = "The harbour was dug by 240 workers.", "When was the harbour dug?", "1873"
    assert pieces(encode, context, question, answer) != whole("merging", "squad-v2", context, question, answer)
    assert not encode.adds_up(context, question, answer)


@each_kind
@each_template
def test_every_answer_ends_with_end_of_text_which_is_not_padding(kind, name):
    encode = encoder(kind, name)
    for answer in ("1873", None, "</s>", "two words"):
        ids = encode.answers([answer])[0]
        assert ids.count(encode.eos_token_id) == 1
        assert ids[-1] == made(kind).eos_token_id != encode.pad_token_id
        assert encode.pad_token_id not in ids


@each_kind
@each_template
def test_text_that_spells_a_special_token_stays_text(kind, name):
    encode = encoder(kind, name)
    tokenizer = made(kind)
    for token in tokenizer.all_special_tokens:
        text = f"a {token} b"
        ids = pieces(encode, text, text, text)
        inside = ids[len(encode.shared([None])[0]) : -1]
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert not special & set(inside)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "word pieces"])  # which loses case and spaces
@each_template
@pytest.mark.parametrize(
    "answer", ["1873", "Captain Oru", '"We\'ll sail"', "$3.20", "caf\u00e9 \u65e5\u672c \U0001f600"]
)
def test_what_is_learnt_is_read_back(kind, name, answer):
    encode = encoder(kind, name)
    assert encode.read(encode.answers([answer])[0]) == answer
    assert encode.read([*encode.answers([answer])[0], *encode.answers(["more"])[0]]) == answer


@each_kind
@each_template
def test_the_no_answer_phrase_is_read_as_no_answer(kind, name):
    encode = encoder(kind, name)
    assert encode.read(encode.answers([None])[0]) == ""


@each_template
@pytest.mark.parametrize(
    ("kind", "starts"), [("llama-2", True), ("gemma", True), ("metaspace", False), ("gpt-2", False)]
)
def test_start_of_text_stands_first_where_the_tokenizer_puts_it(kind, name, starts):
    encode, start = encoder(kind, name), made(kind).bos_token_id
    expected = [start] if starts else []
    assert encode.shared([None])[0] == expected
    for context in (None, "A passage."):
        ids = pieces(encode, context, "Who?", "Oru")
        assert (ids[0] == start) == starts
        assert ids[1:-1].count(start) == 0


class Changed:
    """A real tokenizer with another end-of-text."""

    def __init__(self, tokenizer, eos_token_id):
        self.tokenizer, self.eos_token_id = tokenizer, eos_token_id

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def test_a_tokenizer_without_end_of_text_is_refused():
    with pytest.raises(InputError, match=r"model\.source names a model whose tokenizer has no end-of-text"):
        PromptEncoder(Changed(made("gpt-2"), None), TEMPLATES["seed"], 1)


def test_end_of_text_as_padding_is_refused():
    tokenizer = made("gpt-2")
    with pytest.raises(InputError, match=r"only pad with end-of-text \(id 0\).*add a padding token") as caught:
        PromptEncoder(tokenizer, TEMPLATES["seed"], tokenizer.eos_token_id)
    assert caught.value.exit_code == 2


@each_kind
def test_many_at_a_time_give_the_tokens_that_each_gives_alone(kind):
    encode = encoder(kind, "squad-v2")
    pieces = ["A ship.", "", "'s", "1873", "\u65e5\u672c", "word " * 40]

    assert encode.shared(pieces) == [encode.shared([piece])[0] for piece in pieces]
    assert encode.answers([*pieces, None]) == [encode.answers([piece])[0] for piece in [*pieces, None]]
    for closed_book in (False, True):
        asked = encode.questions(pieces, closed_book=closed_book)
        assert asked == [encode.questions([piece], closed_book=closed_book)[0] for piece in pieces]
