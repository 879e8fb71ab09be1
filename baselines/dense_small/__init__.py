"""The small dense baseline: a dense network as large as a given record."""
