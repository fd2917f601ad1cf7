"""Discovery: finds the servers of a pool at run time."""
