"""Benchmarks of the engines on this machine: speed, share of the processor's peak, memory, agreement with float.

Contenders run in turns, round by round, in one process: a machine that gets slower or busier does so for all of them,
and the ratios hold.
"""
