"""The event loop of the plain sockets, and what it keeps: time, pipes, threads, options."""
