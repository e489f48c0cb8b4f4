"""Legendre memories, state-space decoder and flow head of the FLAME-style model."""
