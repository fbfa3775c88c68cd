"""Pairs of a phone-like and a good photo: found on disk, checked, and cut into samples to learn from."""
