"""Measuring results: weights on pairs of photos, and two results against each other."""
