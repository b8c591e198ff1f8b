"""Training: optimizer steps, transformers.Trainer around them, the checks before a run, and checkpoints."""
