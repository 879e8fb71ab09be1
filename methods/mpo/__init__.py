"""MPO: weights as matrix product operators (tensor-train matrices)."""
