"""The demo: an invented world, the dataset about it, and the text that its base model is pretrained on."""
