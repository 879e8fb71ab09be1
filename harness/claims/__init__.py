"""Published claims as data, the evidence for and against them, and a verdict that can be rechecked."""
