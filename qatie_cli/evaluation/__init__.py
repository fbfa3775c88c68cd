"""Evaluation: weights against target photos, and two results against each other."""
