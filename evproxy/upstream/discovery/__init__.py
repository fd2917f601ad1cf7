"""Where the servers of a pool come from at run time."""
