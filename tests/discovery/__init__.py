"""Where the servers of pools come from."""
