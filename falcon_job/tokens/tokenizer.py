"""Load the tokenizer of a base model, with a padding token that is not end-of-text."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from falcon_job.errors import InputError, first_line
from falcon_job.qa.prompt import PromptTemplate
from falcon_job.tokens.encoder import PromptEncoder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from local files, with a padding token that is not end-of-text where it has any special token.

    Raises:
        InputError: there is no tokenizer that transformers loads.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file raises whatever transformers stumbles over
        raise InputError(f"{folder}: no tokenizer that transformers loads: {first_line(error)}") from None
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        unused = [i for i, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
        others = [i for i in unused if i != tokenizer.eos_token_id]
        # No embedding is added: an id the model has, which a mask hides wherever it pads.
        tokenizer.pad_token_id = others[0] if others else tokenizer.eos_token_id
    return tokenizer


def make_encoder(folder: Path, template: PromptTemplate) -> PromptEncoder:
    """Return what tokenizes a template's prompts with the tokenizer in `folder`.

    Raises:
        InputError: there is no tokenizer, or its answers could never end.
    """
    tokenizer = load_tokenizer(folder)
    return PromptEncoder(tokenizer, template, tokenizer.pad_token_id)
