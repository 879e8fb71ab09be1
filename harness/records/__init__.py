"""Record folders: their schema, reading and writing them, and the values that readers find in them."""
