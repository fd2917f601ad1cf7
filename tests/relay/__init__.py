"""What moves the bytes of a session."""
