"""HTML pages of results: before and after of a batch, or two results side by side."""
