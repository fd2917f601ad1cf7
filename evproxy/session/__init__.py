"""One proxied connection: its phases, its two halves, and the admission of clients."""
