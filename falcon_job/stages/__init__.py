"""One module a DVC stage: thin, reads and writes the workspace."""
