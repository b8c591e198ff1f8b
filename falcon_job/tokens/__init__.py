"""From prompts to tokens: the encoder, and the dataset on disk. From here down nothing knows what a question is."""
