"""What makes sockets: ports, connectors, their transports; and what joins two of them."""
