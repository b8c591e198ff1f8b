"""The language model: loading, precision, adapter; compat.py holds every patch of a library."""
