"""Batches on a Ray cluster: nodes checked, memory declared, an engine for each actor."""
