"""HTML pages to look at results: before and after of a batch, or two results side by side."""
