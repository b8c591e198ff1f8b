"""Question answering in pure Python: prompts, windows, answer spans and the metric."""
