"""The synthetic corpus on which a forecaster is pre-trained: no real series is in it."""
