"""The pruning baseline: the weights of small magnitude are zero."""
