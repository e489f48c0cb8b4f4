"""Looking for leakage and unfairness: in stored results, in live methods, in data sets."""
