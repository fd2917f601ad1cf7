"""Sessions from end to end, with each kind of endpoint."""
