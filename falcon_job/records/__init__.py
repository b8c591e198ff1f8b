"""Question files: formats become passages and problems, passages are kept on disk and split."""
