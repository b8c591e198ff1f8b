"""The language model: weights, precision, attention and adapter, and the settings to train it on this machine."""
