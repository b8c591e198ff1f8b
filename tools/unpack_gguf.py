"""Convert a GGUF file to a model folder (safetensors and tokenizer), for machines without access to the Hub.

    python -m tools.unpack_gguf MODEL.gguf FOLDER

It needs the package gguf: `pip install gguf`.
"""

from pathlib import Path

import click
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def unpack_gguf(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file, dequantized to bf16, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    backend = tokenizer.backend_tokenizer
    # SmolLM2 splits numbers into single digits, but its GGUF file does not record that.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
    tokenizer.save_pretrained(folder)


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(source: Path, folder: Path) -> None:
    """Convert the GGUF file SOURCE and write the model to FOLDER."""
    unpack_gguf(source, folder)


if __name__ == "__main__":
    main()
