"""Quantization of the network: the scheme, calibration, equalization, rounding and integers."""
