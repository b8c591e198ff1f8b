"""Answers: generated in batches, with the probability that there is none, and scored."""
