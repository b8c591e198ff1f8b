"""The systems that `benchmarks.train_speed` compares. All get the same questions, weights and LoRA."""
