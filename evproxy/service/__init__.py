"""A proxy as a Twisted service."""
