"""Files in object stores, on this machine and in memory, by URL; fsspec opens them."""
