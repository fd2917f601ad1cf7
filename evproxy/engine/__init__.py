"""The event loop of the plain sockets, with its deadlines, pipes, threads and socket options."""
