"""Forecast scores: pure functions per metric, and streaming accumulators over batches of windows."""
