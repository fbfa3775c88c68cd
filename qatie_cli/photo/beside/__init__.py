"""Gain maps and motion photos' videos, which a file holds beside the picture."""
