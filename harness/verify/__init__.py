"""Verification: rules as data, checks by level, findings as data, renderings of them."""
