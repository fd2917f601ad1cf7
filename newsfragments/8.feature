`source` of a pool and `--source`: the addresses of this machine that sessions and health checks connect from, in turn. Each address allows about 28,000 more connections to one server.
