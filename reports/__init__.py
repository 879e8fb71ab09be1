"""Pages made from stored records and nothing else: gather -> document (every number) -> view (tables) -> renderings."""
