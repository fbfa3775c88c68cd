"""A photo in, a better photo out: tone, network, and everything that keeps memory bounded."""
