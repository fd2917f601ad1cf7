`source` of a pool and `--source`: the addresses of this machine that sessions and health checks connect from, in turn. Each is about 28,000 connections to one server more.
