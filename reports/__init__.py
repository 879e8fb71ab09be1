"""Pages made from stored records and nothing else."""
