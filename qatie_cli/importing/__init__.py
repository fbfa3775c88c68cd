"""Weights of others, and qatie's own exports, read into what a qatie weights file holds."""
