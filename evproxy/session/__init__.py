"""One proxied connection: its phases, its two halves, and who may come in."""
