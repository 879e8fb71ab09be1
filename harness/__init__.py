"""Settle claims of model compression with evidence that anyone can recheck."""

__version__ = "0.1.0"
