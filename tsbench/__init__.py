"""tsbench."""
