"""Answers to questions: generated in batches, scored, and given from the exported bundle, which is verified first."""
