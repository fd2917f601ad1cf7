"""Ports, connectors, transports, socket options."""
