"""Settings as text: how one is declared, what it may be, and the configuration file."""
