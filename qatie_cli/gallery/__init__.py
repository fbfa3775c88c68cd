"""Pages to look at results with: before and after of a batch, and two results side by side."""
