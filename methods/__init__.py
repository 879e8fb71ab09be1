"""Compression methods, each a plugin package with method.toml and method.py."""
