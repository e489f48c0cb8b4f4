"""Frozen forecasters and what runs them."""
