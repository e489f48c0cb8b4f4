"""TS-Memory (arXiv 2602.11550): a kNN teacher distilled into a memory module."""
