"""Make a model folder (safetensors and tokenizer) from a GGUF file: for machines that have one and no Hub.

pip install gguf
python -m tools.unpack_gguf MODEL.gguf FOLDER
"""

from pathlib import Path

import click
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def unpack_gguf(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file in bf16, dequantized, with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    backend = tokenizer.backend_tokenizer
    # SmolLM2 splits digits one by one, which its GGUF does not say
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
    tokenizer.save_pretrained(folder)


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(source: Path, folder: Path) -> None:
    """Run `unpack_gguf`."""
    unpack_gguf(source, folder)


if __name__ == "__main__":
    main()
