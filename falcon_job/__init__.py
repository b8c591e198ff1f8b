"""Fine-tune Falcon models to answer questions about passages, as a batch job driven by DVC."""

__version__ = "0.1.0"
