"""The task in pure Python: read and validate questions, build prompts, score answers."""
