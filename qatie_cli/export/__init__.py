"""Weights in the formats of other runtimes."""
