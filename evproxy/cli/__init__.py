"""The entry points: what a shell, and what twistd, runs."""
