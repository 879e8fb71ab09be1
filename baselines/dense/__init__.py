"""The dense baseline: every matrix of every block is stored."""
