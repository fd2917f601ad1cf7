"""Ports, connectors and transports of plain sockets, and the plane, which joins two transports."""
