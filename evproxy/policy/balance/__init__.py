"""The balancing policies: each module picks the upstream server of a new session in its way."""
