"""What question answering is, in pure Python: prompts, windows, answer spans and the metric."""
