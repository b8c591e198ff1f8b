"""Write a Falcon of falcon-7b's architecture, small enough for Git: random weights and its own tokenizer.

Run as `python -m tools.make_tiny_falcon OUT_FOLDER --text train.json`. The bytes depend only on the text and
on the versions of torch, transformers and tokenizers.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import FalconConfig, FalconForCausalLM, GenerationConfig, PreTrainedTokenizerFast

SEED = 20
VOCABULARY = 2048
MAX_TOKENS = 2048
INITIALIZER_RANGE = 0.1
"""Above the default 0.02, with which the frozen output layer hardly lets LoRA lower the loss."""
END, PADDING = "<|endoftext|>", "<|padding|>"


def make_tiny_falcon(folder: Path, text: Path) -> None:
    """Write model and tokenizer into `folder`; the tokenizer learns from a SQuAD file."""
    tokenizer = train_tokenizer(squad_text(text))
    tokenizer.save_pretrained(folder)
    random_falcon(tokenizer).save_pretrained(folder)


def squad_text(path: Path) -> Iterator[str]:
    """Yield the passages and questions of a SQuAD file."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]
            yield from (question["question"] for question in paragraph["qas"])


def train_tokenizer(text: Iterator[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that splits as falcon-7b's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PADDING,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],  # Falcon takes no token_type_ids
        clean_up_tokenization_spaces=False,
    )


def random_falcon(tokenizer: PreTrainedTokenizerFast) -> FalconForCausalLM:
    """Return an untrained Falcon: multi-query, parallel attention, rotary, no biases, bfloat16."""
    config = FalconConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
        initializer_range=INITIALIZER_RANGE,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model: FalconForCausalLM = FalconForCausalLM(config).bfloat16()
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write a tiny random Falcon.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="the SQuAD file that the tokenizer learns from")
    arguments = parser.parse_args()
    make_tiny_falcon(arguments.folder, arguments.text)


if __name__ == "__main__":
    main()
