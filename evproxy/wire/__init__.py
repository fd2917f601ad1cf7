"""Bytes to values and back: what protocols say at the start of a connection.  Pure."""
