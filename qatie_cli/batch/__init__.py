"""Many photos: what is to be done, decided before any work, then done so that it can be trusted."""
