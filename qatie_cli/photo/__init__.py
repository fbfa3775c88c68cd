"""Photos: pixels, colours and metadata, read from files and written to them."""

MAX_PIXELS = 250_000_000  # larger photos are refused unless the caller allows them; 108 MP phones and panoramas fit
