"""Train a tokenizer like falcon-7b's on any text."""

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END, PADDING = "<|endoftext|>", "<|padding|>"


def train_tokenizer(text: Iterator[str], vocabulary: int, longest: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that splits text the way falcon-7b's does.

    Args:
        text: the training text, piece by piece.
        vocabulary: the largest number of tokens, including the 256 bytes and two special tokens.
        longest: the model's maximum sequence length, in tokens.
    """
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
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],  # Falcon takes no token_type_ids
        clean_up_tokenization_spaces=False,
    )
