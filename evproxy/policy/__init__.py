"""Decisions without I/O: the caller passes the time and the random source."""
