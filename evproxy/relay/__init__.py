"""The relays: they move the bytes of a session, and end the session."""
