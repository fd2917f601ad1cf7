"""What makes sockets: ports, connectors, transports, options."""
