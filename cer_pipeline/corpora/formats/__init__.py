"""One module for every corpus format, the registry of formats, and what several of them read."""
