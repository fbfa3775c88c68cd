"""qatie: phone photos enhanced by a small quantization-aware network that runs as int8 on any CPU."""

__version__ = "0.1.0"
