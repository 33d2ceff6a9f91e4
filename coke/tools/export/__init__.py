"""A run's backbone in the formats of other tools: `coke export`."""
