"""Batches whose photos lie in stores, or are worked on by many machines: planned on disk, worked on in small parts."""
