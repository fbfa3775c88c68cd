"""Training data: pairs of a phone-like and a good photo, found on disk or made, checked and cut into samples."""
