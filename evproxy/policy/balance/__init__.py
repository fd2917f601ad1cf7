"""Which upstream server a new session goes to: one module for each policy."""
