"""Models of other runtimes, both ways: exported from our weights, and read into them."""
