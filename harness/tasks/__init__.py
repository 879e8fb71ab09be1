"""Tasks of lm-evaluation-harness on the decoded network of a record."""
