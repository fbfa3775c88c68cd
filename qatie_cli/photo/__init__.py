"""Photo files: what they hold, how they are named, decoded and encoded."""
