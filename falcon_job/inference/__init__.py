"""Answer questions in batches, score the answers, and open and verify the exported bundle."""
