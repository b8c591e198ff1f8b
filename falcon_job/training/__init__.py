"""Training: steps of whole questions, their loss, transformers.Trainer around them, and the check before it starts."""
