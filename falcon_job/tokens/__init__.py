"""From prompts to tokens: the encoder and the dataset on disk. Below this room nothing knows what a question is."""
