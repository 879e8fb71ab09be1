"""A plugin to copy: neighbouring layers share their matrices, each with row gains of its own."""
