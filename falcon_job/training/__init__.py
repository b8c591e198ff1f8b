"""Training: optimizer steps, a subclass of transformers.Trainer, the checks before a run, and checkpoints."""
