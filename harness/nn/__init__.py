"""The backbone that methods share: one transformer whose linear maps come from a factory."""
