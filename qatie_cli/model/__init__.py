"""The model: its two stages, their files, and what ships with the package."""
