"""Benchmarks of the engines on this machine: speed, share of the processor's peak, memory, agreement with float.

Contenders take turns, round by round, in one process, so that changes of the machine's speed or load affect all of
them, and ratios hold.
"""
