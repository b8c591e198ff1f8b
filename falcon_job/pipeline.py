"""The stages of the pipeline, in the order in which they run, each with its help text."""

STAGES = {
    "fetch": "Bring the datasets to build/raw and pin the base model.",
    "preprocess": "Validate the questions and turn them into tokens.",
    "baseline": "Score the untuned model.",
    "train": "Fine-tune a LoRA adapter.",
    "evaluate": "Score the tuned model.",
    "export": "Bundle the adapter with all it needs, and check the bundle by loading it.",
}
