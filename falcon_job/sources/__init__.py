"""Where inputs come from: datasets by path or URL, base models by folder or Hub id, all pinned by hash."""
