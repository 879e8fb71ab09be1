"""The slicing baseline: the residual stream keeps its principal components and loses the rest."""
