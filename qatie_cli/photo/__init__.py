"""Photos: pixels, colours and metadata, read from files and written to them."""

MAX_PIXELS = 250_000_000  # a larger photo is refused unless the caller allows it: 108 MP phones and panoramas fit
