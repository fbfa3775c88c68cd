"""Models of other runtimes: exported from qatie's weights, and imported into them."""
