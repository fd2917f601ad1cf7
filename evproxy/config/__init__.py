"""Settings as text: their declarations, the values that they accept, the configuration file."""
