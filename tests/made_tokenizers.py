"""Tokenizers of every family that causal models use, small, trained on invented text."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from falcon_job.qa.prompt import TEMPLATES

START, END, PADDING, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As in Llama 3 and Falcon3: a run of punctuation takes the line breaks after it."""
TINY_FALCON = Path(__file__).parents[1] / "data" / "falcon-tiny"

SENTENCES = (
    "The harbour of Velmora was dug in 1873 by 240 workers.",
    "It didn't freeze; its water, at 4.5 degrees, stayed open!",
    'Captain Oru said: "We\'ll sail at dawn..." (and they did).',
    "Caf\u00e9s, na\u00efve painters & 12,500 gulls came - for $3.20 each?",
    "\u6e2f\u306f\u51ac\u3082\u958b\u3044\u3066\u3044\u305f\u3002",
    "\u0413\u0430\u0432\u0430\u043d\u044c.",
)
QUESTIONS = ("When was the harbour dug?", 'Who said "dawn"?', "How many gulls came in 1873")
ANSWERS = ("1873", "Captain Oru", "$3.20", None)


def text() -> Iterator[str]:
    """Whole prompts, so that a tokenizer is free to learn merges across their pieces."""
    for template in TEMPLATES.values():
        for sentence in SENTENCES:
            for question in QUESTIONS:
                for answer in ANSWERS:
                    asked = template.question_text(question, closed_book=False)
                    yield template.shared_text(sentence) + asked + template.answer_text(answer)


def lines() -> Iterator[str]:
    """Text as SentencePiece sees it."""
    for prompt in text():
        yield from prompt.split("\n")


def byte_level(splitter: pre.PreTokenizer | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE; without a splitter it merges anything."""
    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = splitter or bytes_only
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[END, PADDING],
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING)


def sentence_piece(
    normalizer: normalizers.Normalizer | None, splitter: pre.PreTokenizer | None, *, starts: bool
) -> PreTrainedTokenizerFast:
    """BPE with byte fallback, as SentencePiece models come out of conversion."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[UNKNOWN, START, END, PADDING], show_progress=False)
    learner.train_from_iterator(lines(), trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [tuple(merge) for merge in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if splitter:
        tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens([UNKNOWN, START, END, PADDING])
    if starts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, vocabulary[START])]
        )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=PADDING, unk_token=UNKNOWN
    )


def word_piece() -> PreTrainedTokenizerFast:
    """Words and their pieces; white space is lost."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=[UNKNOWN, END, PADDING], show_progress=False)
    tokenizer.train_from_iterator(text(), trainer)
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PADDING, unk_token=UNKNOWN)


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "falcon-tiny": lambda: AutoTokenizer.from_pretrained(TINY_FALCON, local_files_only=True),
    "falcon": lambda: byte_level(
        pre.Sequence(
            [
                pre.Punctuation("contiguous"),
                pre.ByteLevel(add_prefix_space=False),
                pre.Digits(individual_digits=False),
                pre.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        )
    ),
    "gpt-2": lambda: byte_level(pre.ByteLevel(add_prefix_space=False)),
    "gpt-2 with a space first": lambda: byte_level(pre.ByteLevel(add_prefix_space=True)),
    "smollm-2": lambda: byte_level(
        pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    ),
    "llama-3": lambda: byte_level(
        pre.Sequence([pre.Split(Regex(LLAMA_3), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    ),
    "llama-2": lambda: sentence_piece(
        normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]), None, starts=True
    ),
    "mistral": lambda: sentence_piece(None, pre.Metaspace(prepend_scheme="first", split=False), starts=True),
    "metaspace": lambda: sentence_piece(None, pre.Metaspace(prepend_scheme="always"), starts=False),
    "gemma": lambda: sentence_piece(
        normalizers.Replace(" ", "\u2581"), pre.Split(" ", "merged_with_previous"), starts=True
    ),
    "word pieces": word_piece,
}


@cache
def made(kind: str) -> PreTrainedTokenizerBase:
    """A tokenizer of `KINDS`; "merging" is one that no causal model should have."""
    return byte_level(None) if kind == "merging" else KINDS[kind]()


def saved(folder: Path, kind: str) -> Path:
    """A folder with a tokenizer's files."""
    made(kind).save_pretrained(folder)
    return folder
