"""Health checks: one question to one server."""
