"""Question files: readers turn formats into passages and problems; passages are stored on disk and split."""
