"""Batches: planned before any work, resumable, and robust to bad photos, full disks and interruptions."""
