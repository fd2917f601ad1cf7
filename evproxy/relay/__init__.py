"""What moves the bytes of a session, and brings it to its end."""
