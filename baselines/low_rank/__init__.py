"""The low-rank baseline: every matrix of every block is a product of two."""
