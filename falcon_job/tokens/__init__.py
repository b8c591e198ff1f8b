"""From prompts to tokens: the encoder and the dataset on disk. `packing` then only sees tokens, not questions."""
