"""Load the tokenizer of a base model, with a padding token that is not end-of-text."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from falcon_job.errors import InputError, first_line
from falcon_job.qa.prompt import PromptTemplate
from falcon_job.tokens.encoder import PromptEncoder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from local files. If it would pad with end-of-text, set another special token for padding.

    Raises:
        InputError: the folder has no tokenizer that transformers can load.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file can raise anything in transformers
        raise InputError(
            f"has no tokenizer that transformers can load ({first_line(error)})",
            place=folder,
            fix="use a model that comes with its tokenizer, or copy its files again",
        ) from None
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        special = [i for i, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
        others = [i for i in special if i != tokenizer.eos_token_id]
        # The model already has an embedding for this id, and the attention mask hides padding.
        tokenizer.pad_token_id = others[0] if others else tokenizer.eos_token_id
    return tokenizer


def make_encoder(folder: Path, template: PromptTemplate) -> PromptEncoder:
    """Return an encoder for the prompts of a template, with the tokenizer in `folder`.

    Raises:
        InputError: there is no tokenizer, or the model could not learn to end an answer.
    """
    tokenizer = load_tokenizer(folder)
    return PromptEncoder(tokenizer, template, tokenizer.pad_token_id)
