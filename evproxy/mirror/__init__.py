"""Mirrors: a copy of what clients send, for the servers of a second pool."""
