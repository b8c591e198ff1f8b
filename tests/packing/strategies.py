"""Hypothesis strategies for trees."""

from hypothesis import strategies as st

from falcon_job.packing import Branch, Tree

TOKENS = st.integers(0, 3) | st.integers(0, 96)
"""Few enough that prompts often begin alike."""
BRANCHES = st.builds(
    Branch, st.lists(TOKENS, min_size=1, max_size=6).map(tuple), st.lists(TOKENS, max_size=4).map(tuple)
)
TREES = st.builds(Tree, st.lists(TOKENS, max_size=12).map(tuple), st.lists(BRANCHES, min_size=1, max_size=6).map(tuple))
SEVERAL = st.lists(TREES, min_size=1, max_size=4)
TOKENS_PER_PACK = 40
"""A pack that holds any one branch with its prefix."""
