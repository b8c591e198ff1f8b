"""Commands that are not the work of one stage."""
