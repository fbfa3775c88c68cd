"""Training: tone stage, float stage and quantization-aware stage of one resumable run."""
