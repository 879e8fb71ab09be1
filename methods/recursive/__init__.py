"""Recursive weight sharing."""
