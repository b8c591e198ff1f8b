"""Question files: a reader for each format, the passages on disk, and their splits."""
