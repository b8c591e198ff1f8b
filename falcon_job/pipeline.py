"""The stages of the pipeline in the order they run, each with its help text."""

STAGES = {
    "fetch": "Fetch the datasets and pin the base model by hash.",
    "preprocess": "Validate the questions and tokenize them.",
    "baseline": "Score the untuned model.",
    "train": "Fine-tune a LoRA adapter.",
    "evaluate": "Score the tuned model.",
    "export": "Bundle the adapter and verify the bundle.",
}
