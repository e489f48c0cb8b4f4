"""Networks alone."""
