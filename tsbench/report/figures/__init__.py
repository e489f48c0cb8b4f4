"""Figures from stored results: what is to be shown is prepared as plain data first, then drawn."""
