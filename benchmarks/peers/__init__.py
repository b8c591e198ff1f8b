"""The systems that `benchmarks.train_speed` compares, each in its own way with the same questions, weights and LoRA."""
