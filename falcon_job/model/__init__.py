"""The language model: its weights, precision, attention and adapter, and how this machine trains it."""
