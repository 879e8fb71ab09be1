"""The "Monolith" claims: a searched equation that generates a model's weights. Nothing but headlines was published."""
