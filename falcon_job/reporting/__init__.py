"""What people read after a run: the summary on the terminal, and the model card with its provenance."""
